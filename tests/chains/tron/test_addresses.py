"""TRON's account keys and addresses, against an independent library (tronpy) and known pairs."""

from __future__ import annotations

from typing import cast

import pytest
import tronpy.keys
from bip32 import BIP32
from eth_account.hdaccount import key_from_seed, seed_from_mnemonic
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.families import FAMILIES
from tallystick.chains.tron import addresses
from tallystick.core.errors import InvalidInput
from tallystick.core.money import Asset
from tallystick.core.network import Network

MNEMONICS = (
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
    "test test test test test test test test test test test junk",
    "legal winner thank year wave sausage worth useful legal winner thank yellow",
)
TRON = FAMILIES["tron"]
NETWORK = Network("tron", "tron", "728126428", Asset("tron", "TRX", 6))

ZPUB = (
    "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1"
    "ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs"
)
# The address of "abandon … about" at m/44'/195'/0'/0/0 is what TRON wallets show for that phrase.
FIRST_OF_ABANDON = "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH"
KNOWN = {
    "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t": "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c",  # USDT
    "TEkxiTehnzSmSe2XqrBj4w32RUN966rdz8": "0x3487b63d30b5b2c87fb7ffa8bcfade38eaac1abe",  # USDC
    "T9yD14Nj9j7xAB4dbGeiX9h8unkKHxuWwb": "0x0000000000000000000000000000000000000000",  # where TRX is burnt
}


def account_key(mnemonic: str, account: int = 0) -> str:
    """The xpub at m/44'/195'/account'."""
    root = BIP32.from_seed(seed_from_mnemonic(mnemonic, ""))
    return cast(str, root.get_xpub_from_path(f"m/44'/195'/{account}'"))


def independent(mnemonic: str, index: int) -> str:
    """The address of m/44'/195'/0'/0/index from the private key, by eth-account's derivation and tronpy's encoding."""
    private = key_from_seed(seed_from_mnemonic(mnemonic, ""), f"m/44'/195'/0'/0/{index}")
    return str(tronpy.keys.PrivateKey(private).public_key.to_base58check_address())


@pytest.mark.parametrize("mnemonic", MNEMONICS)
def test_addresses_are_those_of_an_independent_library(mnemonic: str) -> None:
    key = account_key(mnemonic)
    for index in (0, 1, 2, 19, 1000, 2**31 - 1):
        assert TRON.display(TRON.derive(key, index), NETWORK) == independent(mnemonic, index)


def test_the_first_address_is_what_wallets_show() -> None:
    assert TRON.display(TRON.derive(account_key(MNEMONICS[0]), 0), NETWORK) == FIRST_OF_ABANDON


@pytest.mark.parametrize(("shown", "normal"), KNOWN.items())
def test_known_addresses(shown: str, normal: str) -> None:
    prefixed = "41" + normal[2:]
    assert addresses.display(normal) == shown
    assert addresses.with_prefix(shown) == prefixed
    for form in (shown, prefixed, prefixed.upper(), "0x" + prefixed, normal):
        assert TRON.normalize(form, None) == normal


@given(st.binary(min_size=20, max_size=20))
def test_all_forms_of_any_address_are_one(raw: bytes) -> None:
    shown = addresses.display("0x" + raw.hex())
    assert shown == tronpy.keys.to_base58check_address(raw)
    assert len(shown) == 34
    assert addresses.normalize(shown) == "0x" + raw.hex()


@given(
    st.binary(min_size=20, max_size=20),
    st.integers(0, 33),
    st.sampled_from("123456789ABCDEFGHJKLMNPQRSTUVWXYZabc"),
)
def test_a_typing_error_is_noticed(raw: bytes, position: int, instead: str) -> None:
    shown = addresses.display("0x" + raw.hex())
    typed = shown[:position] + instead + shown[position + 1 :]
    if typed != shown:
        with pytest.raises(InvalidInput):
            addresses.normalize(typed)


@given(st.text(max_size=80))
def test_other_texts_are_refused(text: str) -> None:
    """Nothing but a refusal comes of them, which does not repeat what may be a secret."""
    with pytest.raises(InvalidInput) as caught:
        addresses.normalize(text)
    assert len(text) < 12 or text not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "T", "T" * 34, "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "41" + "00" * 19, "0x41" + "00" * 21,
        "42" + "00" * 20, "a614f803b6fd780986a42c78ec9c7f77e6ded13c", "tR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t",
        " TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t\n",
        "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6",
        "0xA614f803b6fd780986a42c78ec9c7f77e6ded13c",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInput):
        addresses.normalize(text)


def test_where_money_may_go() -> None:
    """An Ethereum form is refused there: at an exchange it is somebody else's account. So is what nobody can spend."""
    shown = addresses.display("0x" + "5b" * 19 + "00")
    assert TRON.check_destination(shown, NETWORK) == "0x" + "5b" * 19 + "00"
    for refused in (
        "0x" + "5b" * 19 + "00",
        "T9yD14Nj9j7xAB4dbGeiX9h8unkKHxuWwb",
        addresses.display("0x" + "00" * 16 + "01000001"),
        addresses.display("0x" + "ee" * 20),
        "0x41" + "5b" * 20,
    ):
        with pytest.raises(InvalidInput):
            TRON.check_destination(refused, NETWORK)


def test_transaction_ids_with_and_without_0x() -> None:
    plain = "95aad4dfc3d5d389291c093425d06b2ce5a97b5b4953645316371158ebde3f27"
    for text in (plain, plain.upper(), "0x" + plain):
        assert TRON.normalize_tx_hash(text) == "0x" + plain
    for text in ("", plain[1:], plain + "0", "0x" + plain[2:], "g" * 64):
        with pytest.raises(InvalidInput):
            TRON.normalize_tx_hash(text)


def test_one_key_is_one_counter_whatever_network_it_is_used_for() -> None:
    key = account_key(MNEMONICS[0])
    parsed = TRON.parse_account_key(key)
    assert parsed.fingerprint == FAMILIES["evm"].parse_account_key(key).fingerprint
    assert TRON.derivation_path(key, 7) == "0/7"
    assert TRON.suits(key, NETWORK)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (cast(str, BIP32.from_seed(b"1" * 32).get_xpriv_from_path("m/44'/195'/0'")), "private key"),
        ("ab" * 32, "private key"),
        (MNEMONICS[0], "recovery phrase"),
        (ZPUB, "TRON account"),
        (cast(str, BIP32.from_seed(b"1" * 32).get_xpub_from_path("m/44'/195'/0'/0")), "TRON account"),
        ("xpub" + "1" * 107, "typing error"),
    ],
)  # fmt: skip
def test_keys_that_are_refused(text: str, told: str) -> None:
    """In TRON's words, and without repeating any of it."""
    with pytest.raises(InvalidInput) as caught:
        TRON.parse_account_key(text)
    assert told in caught.value.what
    assert "Ethereum" not in caught.value.what
    assert text[:12] not in str(caught.value)

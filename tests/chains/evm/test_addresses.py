"""Account keys and addresses, against eth-account's own derivation and eth-utils' checksums."""

from __future__ import annotations

import time
from typing import cast

import pytest
from bip32 import BIP32
from bip32.base58 import b58decode_check, b58encode_check
from eth_account import Account
from eth_account.hdaccount import key_from_seed, seed_from_mnemonic
from eth_keys.datatypes import PrivateKey
from eth_utils.address import is_checksum_address, to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.evm.addresses import INDEX_LIMIT, EvmAccountKey, display, normalize
from tallystick.core.errors import InvalidInput

Account.enable_unaudited_hdwallet_features()

MNEMONICS = [
    "test test test test test test test test test test test junk",
    "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
    "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong",
    (
        "hamster diagram private dutch cause delay private meat slide toddler razor book "
        "happy fancy gospel tennis maple dilemma loan word shrug inflict delay length"
    ),
]


def account_xpub(mnemonic: str, path: str = "m/44'/60'/0'", network: str = "main") -> str:
    seed = seed_from_mnemonic(mnemonic, "")
    return cast(str, BIP32.from_seed(seed, network=network).get_xpub_from_path(path))


def expected_address(mnemonic: str, index: int) -> str:
    """The address that eth-account derives, through the private key."""
    private = key_from_seed(seed_from_mnemonic(mnemonic, ""), f"m/44'/60'/0'/0/{index}")
    return PrivateKey(private).public_key.to_checksum_address()


XPUB = account_xpub(MNEMONICS[0])


@pytest.mark.parametrize("mnemonic", MNEMONICS)
@pytest.mark.parametrize("index", [0, 1, 2, 100, 12_345, INDEX_LIMIT - 1])
def test_derives_what_wallets_derive(mnemonic: str, index: int) -> None:
    key = EvmAccountKey.parse(account_xpub(mnemonic))
    assert key.derive(index) == expected_address(mnemonic, index)


def test_first_thousand_addresses() -> None:
    seed = seed_from_mnemonic(MNEMONICS[0], "")
    key = EvmAccountKey.parse(XPUB)
    for index in range(1000):
        private = key_from_seed(seed, f"m/44'/60'/0'/0/{index}")
        assert key.derive(index) == PrivateKey(private).public_key.to_checksum_address()


def test_known_first_address() -> None:
    """The first account of anvil and Hardhat, as everybody knows it."""
    assert EvmAccountKey.parse(XPUB).derive(0) == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def test_derivation_is_fast() -> None:
    key = EvmAccountKey.parse(XPUB)
    best = min(_seconds(key, start) for start in range(0, 1000, 100))
    assert best / 100 < 0.001  # measured: 0.06 ms; the bound leaves room for a busy machine


def _seconds(key: EvmAccountKey, start: int) -> float:
    began = time.perf_counter()
    for index in range(start, start + 100):
        key.derive(index)
    return time.perf_counter() - began


@pytest.mark.parametrize("index", [-1, INDEX_LIMIT, INDEX_LIMIT + 1, 2**40])
def test_index_limits(index: int) -> None:
    with pytest.raises(InvalidInput):
        EvmAccountKey.parse(XPUB).derive(index)


def test_surrounding_space_is_ignored() -> None:
    assert EvmAccountKey.parse(f"  {XPUB}\n") == EvmAccountKey.parse(XPUB)


def test_test_network_prefix_is_the_same_key() -> None:
    tpub = account_xpub(MNEMONICS[0], network="test")
    assert tpub.startswith("tpub")
    assert EvmAccountKey.parse(tpub).fingerprint == EvmAccountKey.parse(XPUB).fingerprint
    assert EvmAccountKey.parse(tpub).derive(7) == EvmAccountKey.parse(XPUB).derive(7)


def test_fingerprint_ignores_depth_and_parent_but_not_the_chain_code() -> None:
    raw = bytearray(b58decode_check(XPUB))
    raw[5:9] = b"\x01\x02\x03\x04"  # another parent's fingerprint
    same = EvmAccountKey.parse(b58encode_check(bytes(raw)).decode())
    raw[13] ^= 1  # another chain code
    other = EvmAccountKey.parse(b58encode_check(bytes(raw)).decode())
    assert same.fingerprint == EvmAccountKey.parse(XPUB).fingerprint != other.fingerprint
    assert same.derive(3) == EvmAccountKey.parse(XPUB).derive(3) != other.derive(3)


def test_neither_repr_nor_fingerprint_holds_the_key() -> None:
    key = EvmAccountKey.parse(XPUB)
    assert XPUB not in repr(key)
    assert len(key.fingerprint) == 64


def test_fingerprints_of_accounts_differ() -> None:
    accounts = [account_xpub(MNEMONICS[0], f"m/44'/60'/{number}'") for number in range(5)]
    assert len({EvmAccountKey.parse(text).fingerprint for text in accounts}) == 5


def with_version(text: str, version: str) -> str:
    """The same key under another prefix."""
    return cast(str, b58encode_check(bytes.fromhex(version) + b58decode_check(text)[4:]).decode())


_ROOT = BIP32.from_seed(seed_from_mnemonic(MNEMONICS[1], ""))
_XPRV = cast(str, _ROOT.get_xpriv_from_path("m/44'/60'/0'"))
PRIVATE = {
    "xprv": _XPRV,
    "yprv": with_version(_XPRV, "049d7878"),
    "zprv": with_version(_XPRV, "04b2430c"),
    "tprv": with_version(_XPRV, "04358394"),
    "vprv": with_version(_XPRV, "045f18bc"),
    "Ltpv": with_version(_XPRV, "019d9cfe"),
    "xprv with a typing error": _XPRV[:-1] + ("1" if _XPRV[-1] != "1" else "2"),
    "xprv in a descriptor": f"wpkh({_XPRV}/0/*)",
    "xprv after other text": f"my key: {_XPRV}",
    "raw key": "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318",
    "raw key with 0x": "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318",
    "seed": "ab" * 64,
    "WIF": "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
    "compressed WIF": "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn",
    "BIP38": "6PRVWUbkzzsbcVac2qwfssoUJAN1Xhrg6bNk8J7Nzm5H7kxEbn2Nh2ZoGg",
    "12 words": MNEMONICS[1],
    "24 words": MNEMONICS[4],
    "12 words, capitals, odd spaces": MNEMONICS[1].upper().replace(" ", "  \n"),
    "12 words with commas": MNEMONICS[1].replace(" ", ", "),
    "12 words, unknown": "un deux trois quatre cinq six sept huit neuf dix onze douze",
    "12 words, Japanese": " ".join(["あいこくしん"] * 12),
    "key file": '{"crypto": {"cipher": "aes-128-ctr"}, "version": 3}',
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_private_keys_are_refused_without_an_echo(kind: str) -> None:
    text = PRIVATE[kind]
    with pytest.raises(InvalidInput) as caught:
        EvmAccountKey.parse(text)
    error = caught.value
    assert "private key" in error.what
    assert error.problems[0].pointer == "/account_key"
    shown = f"{error} {error!r} {error.problems} {error.__cause__} {error.__context__}"
    for word in (text, *text.split(), text[-10:]):
        if len(word) > 7:
            assert word not in shown


@pytest.mark.parametrize(
    ("version", "prefix"),
    [
        ("049d7cb2", "ypub"),
        ("04b24746", "zpub"),
        ("0295b43f", "Ypub"),
        ("02aa7ed3", "Zpub"),
        ("044a5262", "upub"),
        ("045f1cf6", "vpub"),
        ("019da462", "Ltub"),
        ("01b26ef6", "Mtub"),
    ],
)
def test_bitcoin_family_keys_are_explained(version: str, prefix: str) -> None:
    text = with_version(XPUB, version)
    assert text.startswith(prefix)
    with pytest.raises(InvalidInput, match="Bitcoin family") as caught:
        EvmAccountKey.parse(text)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with xpub"),
        ("xpub", "not a valid"),
        (XPUB[:-1], "not a valid"),
        (XPUB + "1", "not a valid"),
        (XPUB[:50] + ("1" if XPUB[50] != "1" else "2") + XPUB[51:], "not a valid"),
        (XPUB.replace("x", "X", 1), "begins with xpub"),
        (XPUB[:60] + "é" + XPUB[61:], "not a valid"),
        (XPUB[:60] + "0" + XPUB[61:], "not a valid"),
        (f"wpkh({XPUB}/0/*)", "descriptors"),
        (f"[f00dbabe/44h/60h/0h]{XPUB}", "descriptors"),
        ("x" * 513, "no more than 512"),
        ("xpub" * 100_000, "no more than 512"),
        ("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "single address"),
        (account_xpub(MNEMONICS[0], "m/44'/60'/0'/0"), "below an account"),
        (account_xpub(MNEMONICS[0], "m/44'/60'/0'/0/0"), "below an account"),
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "begins with xpub"),
    ],
)
def test_bad_keys_are_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        EvmAccountKey.parse(text)
    if len(text) > 20:
        assert text not in str(caught.value)


def test_key_that_is_no_point_of_the_curve() -> None:
    raw = bytearray(b58decode_check(XPUB))
    raw[45:] = b"\x05" + bytes(32)
    with pytest.raises(InvalidInput, match="not a valid"):
        EvmAccountKey.parse(b58encode_check(bytes(raw)).decode())


@given(st.text(max_size=600))
def test_any_text_is_refused_cleanly(text: str) -> None:
    with pytest.raises(InvalidInput):
        EvmAccountKey.parse(text)


# -- addresses


@given(st.binary(min_size=20, max_size=20))
def test_checksums_are_those_of_eip55(raw: bytes) -> None:
    text = "0x" + raw.hex()
    shown = display(text)
    assert shown == to_checksum_address(text)
    assert is_checksum_address(shown)
    assert normalize(shown) == normalize(text) == text
    assert normalize("0x" + raw.hex().upper()) == text


def test_examples_of_eip55() -> None:
    for text in (
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
    ):
        assert display(text) == text
        assert normalize(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed",  # one letter's case is wrong
        "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0X5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAedd",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg",
        " 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe\n",
        "0x" + "１" * 40,
        "0x" + "1" * 100_000,
    ],
)
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        normalize(text)
    with pytest.raises(InvalidInput):
        display(text)

"""Addresses of Bitcoin's family: the BIPs' vectors, a real node's own, and every mistake people make."""

from __future__ import annotations

import bdkpython as bdk
import pytest
from bip32.base58 import b58encode_check
from embit import bech32
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.bitcoin.addresses import (
    check_destination,
    display,
    normalize,
    normalize_tx_hash,
)
from tallystick.chains.bitcoin.chains import CHAINS
from tallystick.chains.families import FAMILIES
from tallystick.core.errors import InvalidInput
from tests.chains.bitcoin.test_keys import network
from tests.support.litecoind import Litecoind

REGTEST = "litecoin-regtest"
POINT = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
"""The x coordinate of the curve's generator: a taproot output that somebody can spend."""

VALID = [  # BIP173 and BIP350, those of versions that have rules
    (
        "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
        "bitcoin",
        "0014751e76e8199196d454941c45d1b3a323f1433bd6",
    ),
    (
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "bitcoin-signet",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        "tb1qqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesrxh6hy",
        "bitcoin-testnet4",
        "0020000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
    ),
    (
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "bitcoin",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
    ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "bitcoin", "76a91477bff20c60e522dfaa3350c39b030a5d004e839a88ac"),
    ("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "bitcoin", "a914b472a266d0bd89c13706a4132ccfb16f7c3b9fcb87"),
]

INVALID = [  # BIP173 and BIP350
    "tc1qw508d6qejxtdg4y5r3zarvary0c5xw7kg3g4ty",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
    "BC13W508D6QEJXTDG4Y5R3ZARVARY0C5XW7KN40WF2",
    "bc1rw5uspcuh",
    "bc10w508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kw5rljs90",
    "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",
    "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sL5k7",
    "bc1zw508d6qejxtdg4y5r3zarvaryvqyzf3du",
    "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3pjxtptv",
    "bc1gmk9yu",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
    "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",
    "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vpggkg4j",
]


@pytest.mark.parametrize(("address", "chain", "script"), VALID)
def test_published_addresses(address: str, chain: str, script: str) -> None:
    assert normalize(address, "bitcoin", chain) == script
    assert check_destination(address, "bitcoin", chain) == script
    assert display(script, chain) == (address.lower() if address.isupper() else address)
    assert FAMILIES["bitcoin"].normalize(address, network(chain)) == script


@pytest.mark.parametrize("address", INVALID)
@pytest.mark.parametrize("chain", ["bitcoin", "bitcoin-testnet4", "litecoin"])
def test_published_mistakes(address: str, chain: str) -> None:
    with pytest.raises(InvalidInput):
        normalize(address, chain.partition("-")[0], chain)


HASHES = st.binary(min_size=20, max_size=20)
SCRIPTS = st.one_of(
    HASHES.map(lambda digest: b"\x76\xa9\x14" + digest + b"\x88\xac"),
    HASHES.map(lambda digest: b"\xa9\x14" + digest + b"\x87"),
    HASHES.map(lambda digest: b"\x00\x14" + digest),
    st.binary(min_size=32, max_size=32).map(lambda digest: b"\x00\x20" + digest),
    st.binary(min_size=32, max_size=32).map(lambda digest: b"\x51\x20" + digest),
    st.tuples(st.integers(0x52, 0x60), st.binary(min_size=2, max_size=40)).map(
        lambda parts: bytes([parts[0], len(parts[1])]) + parts[1]
    ),
).map(bytes.hex)
CHAIN_NAMES = st.sampled_from(sorted(CHAINS))


@given(SCRIPTS, CHAIN_NAMES)
def test_what_is_shown_is_read_again(script: str, chain: str) -> None:
    shown = display(script, chain)
    assert shown != script
    family = chain.partition("-")[0]
    assert normalize(shown, family, chain) == script
    assert normalize(shown, family, None) == script
    assert len(shown) < 80


OTHER_LIBRARYS = {
    "bitcoin": bdk.Network.BITCOIN,
    "bitcoin-signet": bdk.Network.SIGNET,
    "bitcoin-testnet4": bdk.Network.TESTNET4,
    "bitcoin-regtest": bdk.Network.REGTEST,
}


@given(SCRIPTS, st.sampled_from(sorted(OTHER_LIBRARYS)))
def test_bitcoins_addresses_are_those_of_another_library(script: str, chain: str) -> None:
    shown = display(script, chain)
    read = bdk.Address(shown, OTHER_LIBRARYS[chain])
    assert bytes(read.script_pubkey().to_bytes()).hex() == script
    assert str(read) == shown


@given(SCRIPTS, CHAIN_NAMES, CHAIN_NAMES)
def test_an_address_is_read_only_where_it_is_written_so(script: str, one: str, other: str) -> None:
    """Planted once, and seen to fail: any address of the family taken, whatever its network."""
    shown = display(script, one)
    family = other.partition("-")[0]
    if display(script, other) == shown:
        assert normalize(shown, family, other) == script
        return
    with pytest.raises(InvalidInput, match=r"This is an address of|may as well be Bitcoin's"):
        check_destination(shown, family, other)


@given(SCRIPTS, CHAIN_NAMES, st.data())
def test_a_typing_error_is_never_another_address(script: str, chain: str, data: st.DataObject) -> None:
    """Planted once, and seen to fail: base58 without its checksum."""
    shown = display(script, chain)
    place = data.draw(st.integers(0, len(shown) - 1))
    letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    letter = data.draw(st.sampled_from(letters).filter(lambda one: one.lower() != shown[place].lower()))
    with pytest.raises(InvalidInput):
        normalize(shown[:place] + letter + shown[place + 1 :], chain.partition("-")[0], None)


@given(
    st.text(max_size=140) | st.from_regex(r"(bc|tb|bcrt|ltc|tltc|rltc|ltcmweb|[13mn2LMQ])1?[a-zA-Z0-9]{0,70}")
)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for chain in ("bitcoin", "litecoin", REGTEST):
        try:
            script = normalize(text, chain.partition("-")[0], chain)
        except InvalidInput:
            continue
        assert display(script, chain).lower() == text.lower()


@given(st.text(max_size=40) | st.binary(max_size=60).map(bytes.hex))
def test_any_script_is_shown_or_refused(text: str) -> None:
    for chain in (*CHAINS, None):
        try:
            assert display(text, chain)
        except InvalidInput:
            continue


async def test_a_nodes_own_addresses(litecoind: Litecoind) -> None:
    """Every kind that a wallet hands out, as the node encodes and decodes it; MWEB ones are refused in words."""
    family, here = FAMILIES["litecoin"], network(REGTEST)
    for kind, beginning in (("bech32", "rltc1q"), ("p2sh-segwit", "Q"), ("legacy", ("m", "n"))):
        address = await litecoind.new_address(kind)
        assert address.startswith(beginning)
        script = await litecoind.script_of(address)
        assert family.normalize(address, here) == script
        assert family.check_destination(address, here) == script
        assert family.display(script, here) == address
    old = b58encode_check(bytes([CHAINS[REGTEST].p2sh_old or 0]) + bytes(range(20))).decode()
    assert family.normalize(old, here) == await litecoind.script_of(old)  # the node reads it, as we do
    taproot = display(f"5120{POINT}", REGTEST)
    assert await litecoind.script_of(taproot) == f"5120{POINT}"
    hidden = await litecoind.new_address("mweb")
    assert (await litecoind.rpc("validateaddress", hidden))["isvalid"]
    for read in (family.normalize, family.check_destination):
        with pytest.raises(InvalidInput, match="This is an MWEB address"):
            read(hidden, here)


NO_POINT = "4a298dacae57395a15d0795ddbfd1dcb564da82b0f269bc70a74f8220429ba1d"
"""BIP340's example of a public key that is not on the curve."""
LOST = "money sent there is lost"
NO_RULES = "no rules yet"
DESTINATIONS = [
    # What a customer of a shop on a regtest chain must not give: addresses of chains with real money, and the reverse.
    (
        "ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9",
        REGTEST,
        "an address of Litecoin, not of a Litecoin regtest",
    ),
    (
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        REGTEST,
        "an address of Bitcoin, not of a Litecoin regtest",
    ),
    (
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "bitcoin-regtest",
        "an address of Bitcoin, not of a Bitcoin regtest",
    ),
    ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "litecoin", "an address of Bitcoin, not of Litecoin"),
    ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "bitcoin-regtest", "an address of Bitcoin"),
    ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "litecoin", "an address of Bitcoin"),
    ("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "bitcoin", "testnet4, not of Bitcoin"),
    ("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "bitcoin-regtest", "testnet4, not of a Bitcoin regtest"),
    # What begins with 3 is Bitcoin's way today, and was Litecoin's once.
    ("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "litecoin", "may as well be Bitcoin's"),
    # Nobody's.
    (display("76a914" + "00" * 20 + "88ac", "bitcoin"), "bitcoin", LOST),
    (display("0014" + "00" * 20, "bitcoin"), "bitcoin", LOST),
    (display("a914" + "ff" * 20 + "87", "bitcoin"), "bitcoin", LOST),
    (display("0020" + "11" * 32, "litecoin"), "litecoin", LOST),
    (display(f"5120{NO_POINT}", "bitcoin"), "bitcoin", LOST),
    (bech32.encode("bc", 1, bytes.fromhex("4e73")), "bitcoin", NO_RULES),  # pay to anchor: anybody's
    (bech32.encode("bc", 2, bytes(range(32))), "bitcoin", NO_RULES),
    (bech32.encode("ltc", 16, bytes(range(2))), "litecoin", NO_RULES),
    # No addresses.
    ("", "bitcoin", "not an address of Bitcoin"),
    ("0x52908400098527886E0F7030069857D2E4169EE7", "litecoin", "not an address of Litecoin"),
    ("bitcoin:1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "bitcoin", "not an address of Bitcoin"),
    ("0014751e76e8199196d454941c45d1b3a323f1433bd6", "bitcoin", "not an address of Bitcoin"),
    ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3", "bitcoin", "typing error"),
    ("ltcmweb1" + "q" * 60, "litecoin", "MWEB address"),
    ("LTCMWEB1" + "Q" * 60, "bitcoin", "MWEB address"),
    ("tmweb1" + "q" * 60, REGTEST, "MWEB address"),
]


@pytest.mark.parametrize(("address", "chain", "words"), DESTINATIONS)
def test_where_a_refund_must_not_go(address: str, chain: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_destination(address, chain.partition("-")[0], chain)
    assert words in str(refused.value)


def test_a_script_is_shown_as_it_is_where_it_has_no_address() -> None:
    assert display(f"6a04{'ab' * 4}", "bitcoin") == f"6a04{'ab' * 4}"
    assert display(f"21{'02' * 33}ac", "bitcoin") == f"21{'02' * 33}ac"
    assert display("0014" + "ab" * 20, None) == "0014" + "ab" * 20  # the network is no longer configured
    for wrong in ("51", "0014AB", "xyz", ""):
        with pytest.raises(InvalidInput):
            display(wrong, "bitcoin")


def test_transaction_ids() -> None:
    assert normalize_tx_hash("AB" * 32) == "ab" * 32
    for wrong in ("0x" + "ab" * 32, "ab" * 31, "", "zz" * 32, "ab" * 32 + "\n"):
        with pytest.raises(InvalidInput):
            normalize_tx_hash(wrong)

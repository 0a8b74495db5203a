"""Blocks of Bitcoin's family from their bytes: what comes out is all that is in them, and nothing that is not.

Real headers of all chains' first blocks, two early blocks of Bitcoin and a transaction of its taproot time; blocks of a
real litecoind, with and without extension blocks, against that node's own reading of them; made-up blocks as new nodes
have them (taproot).
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.chains.bitcoin.blocks import RULES, checked_block, dust_limit, header_of, transfers_of
from tallystick.chains.bitcoin.chains import CHAINS
from tallystick.chains.bitcoin.messages import HeaderAnswer
from tallystick.chains.bitcoin.source import GENESIS
from tallystick.chains.bitcoin.transactions import transaction_alone
from tallystick.core.chain import Block, Channel, Trait
from tallystick.core.errors import SourceIncomplete
from tests.support.core_stub import (
    StubBlock,
    StubCore,
    compact_size,
    filler,
    make_block,
    make_transaction,
    p2pkh,
    p2sh,
    p2tr,
    p2wpkh,
)
from tests.support.litecoind import COIN, MWEB_HEIGHT, Litecoind, litoshi

BITCOIN = RULES["bitcoin"]
LITECOIN = RULES["litecoin"]

# Bitcoin's first block, which every node of main net has built in. Its coinbase pays a bare key, which has no address.
FIRST_COINBASE = (
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054"
    "696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420"
    "666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61"
    "deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
)
FIRST_ROOT = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
LITECOIN_ROOT = "97ddfbbae6be97fd6cdf3e7ca13232a3afff2353e29badfab7f73011edd4ced9"
TESTNET4_ROOT = "7aa0a7ae1e223414cb807e40cd57e667b718e42aaf9306db9102fe28912b7b4e"

# version, root, time, bits, nonce: from the chains' own parameters.
FIRST_HEADERS = {
    "bitcoin": (1, FIRST_ROOT, 1231006505, 0x1D00FFFF, 2083236893),
    "bitcoin-testnet4": (1, TESTNET4_ROOT, 1714777860, 0x1D00FFFF, 393743547),
    "bitcoin-signet": (1, FIRST_ROOT, 1598918400, 0x1E0377AE, 52613770),
    "bitcoin-regtest": (1, FIRST_ROOT, 1296688602, 0x207FFFFF, 2),
    "litecoin": (1, LITECOIN_ROOT, 1317972665, 0x1E0FFFF0, 2084524493),
    "litecoin-testnet": (1, LITECOIN_ROOT, 1486949366, 0x1E0FFFF0, 293345),
    "litecoin-regtest": (1, LITECOIN_ROOT, 1296688602, 0x207FFFFF, 0),
}


# Block 170 of main net, in which one person paid another for the first time.
BLOCK_170_HASH = "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee"
BLOCK_170 = (
    "0100000055bd840a78798ad0da853f68974f3d183e2bd1db6a842c1feecf222a00000000ff104ccb05421ab93e63f8c3ce5c2c2e9dbb37"
    "de2764b3a3175c8166562cac7d51b96a49ffff001d283e9e70020100000001000000000000000000000000000000000000000000000000"
    "0000000000000000ffffffff0704ffff001d0102ffffffff0100f2052a01000000434104d46c4968bde02899d2aa0963367c7a6ce34eec"
    "332b32e42e5f3407e052d64ac625da6f0718e7b302140434bd725706957c092db53805b821a85b23a7ac61725bac000000000100000001"
    "c997a5e56e104102fa209c6a852dd90660a20b2d9c352423edce25857fcd3704000000004847304402204e45e16932b8af514961a1d3a1"
    "a25fdf3f4f7732e9d624c6c61548ab5fb8cd410220181522ec8eca07de4860a4acdd12909d831cc56cbbac4622082221a8768d1d0901ff"
    "ffffff0200ca9a3b00000000434104ae1a62fe09c5f51b13905f07f06b99a2f7159b2225f374cd378d71302fa28414e7aab37397f554a7"
    "df5f142c21c1b7303b8a0626f1baded5c72a704f7e6cd84cac00286bee0000000043410411db93e1dcdb8a016b49840f8c53bc1eb68a38"
    "2e97b1482ecad7b148a6909a5cb2e0eaddfb84ccf9744464f82e160bfa9b8b64f9d4c03f999b8643f656b412a3ac00000000"
)
BLOCK_170_COINBASE = "b1fea52486ce0c62bb442b530a3f0132b826c74e473d1f2c220bfa78111c5082"
BLOCK_170_PAYMENT = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16"
BLOCK_170_SPENT = "0437cd7f8525ceed2324359c2d0ba26006d92d856a9c20fa0241106ee5a597c9:0"

# The first transaction of main net (block 709635, 2021) that spends a taproot output by its key.
TAPROOT_ID = "33e794d097969002ee05d336686fc03c9e15a597c1b9827669460fac98799036"
TAPROOT = (
    "01000000000101d1f1c1f8cdf6759167b90f52c9ad358a369f95284e841d7a2536cef31c0549580100000000fdffffff02000000000000"
    "0000316a2f49206c696b65205363686e6f7272207369677320616e6420492063616e6e6f74206c69652e204062697462756734329e0601"
    "0000000000225120a37c3903c8d0db6512e2b40b0dffa05e5a3ab73603ce8c9c4b7771e5412328f90140a60c383f71bac0ec919b1d7dbc"
    "3eb72dd56e7aa99583615564f9f99b8ae4e837b758773a5b2e4c51348854c8389f008e05029db7f464a5ff2e01d5e6e626174affd30a00"
)
TAPROOT_SPENT = "5849051cf3ce36257a1d844e28959f368a35adc9520fb9679175f6cdf8c1f1d1:1"
TAPROOT_SCRIPT = "5120a37c3903c8d0db6512e2b40b0dffa05e5a3ab73603ce8c9c4b7771e5412328f9"


def header_answer(chain: str) -> HeaderAnswer:
    version, root, time, bits, nonce = FIRST_HEADERS[chain]
    return HeaderAnswer(GENESIS[chain], 0, version, root, time, nonce, f"{bits:08x}", 1)


def read(block: StubBlock, raw: bytes | None = None) -> Block:
    text = block.raw_hex if raw is None else raw.hex()
    return checked_block(text, block.hash, block.height, BITCOIN)


@pytest.mark.parametrize("chain", CHAINS)
def test_the_first_block_of_each_chain_has_the_hash_that_we_pin(chain: str) -> None:
    """Computed from the header: a mistake in the table would refuse every node. Nothing was there before it."""
    header = header_of(header_answer(chain))
    assert (header.hash, header.height, header.parent_hash) == (GENESIS[chain], 0, "00" * 32)


def test_bitcoins_first_block() -> None:
    version, root, time, bits, nonce = FIRST_HEADERS["bitcoin"]
    header = struct.pack("<i32s32sIII", version, bytes(32), bytes.fromhex(root)[::-1], time, bits, nonce)
    raw = header.hex() + "01" + FIRST_COINBASE
    block = checked_block(raw, GENESIS["bitcoin"], 0, BITCOIN)
    assert block.spends == {f"coinbase:{FIRST_ROOT}": FIRST_ROOT}
    assert block.transfers == ()
    assert block.header == header_of(header_answer("bitcoin"))
    assert transaction_alone(FIRST_COINBASE).outputs[0][0] == 50 * COIN


def test_a_block_of_bitcoins_first_days() -> None:
    """Everything in it is paid to bare keys, which have no address; what was spent is told all the same."""
    block = checked_block(BLOCK_170, BLOCK_170_HASH, 170, BITCOIN)
    assert block.transfers == ()
    assert block.spends == {
        f"coinbase:{BLOCK_170_COINBASE}": BLOCK_170_COINBASE,
        BLOCK_170_SPENT: BLOCK_170_PAYMENT,
    }
    assert block.header.time == datetime(2009, 1, 12, 3, 30, 25, tzinfo=UTC)


def test_a_real_taproot_payment() -> None:
    transaction = transaction_alone(TAPROOT)
    assert (transaction.tx_hash, transaction.spend_keys) == (TAPROOT_ID, (TAPROOT_SPENT,))
    assert transaction.replaceable
    (transfer,) = transfers_of(transaction, BITCOIN)
    assert (transfer.ordinal, transfer.amount, transfer.to) == (1, 67_230, TAPROOT_SCRIPT)


def test_everything_of_a_block_comes_out() -> None:
    """Old scripts and new ones, taproot among them; several outputs to one address stay several transfers."""
    first, second = ("aa" * 32, 1), ("bb" * 32, 0)
    outputs = [
        (1_000, p2pkh("a")),
        (2_000, p2sh("b")),
        (3_000, p2wpkh("c")),
        (4_000, p2tr("d")),
        (0, p2wpkh("nothing")),
        (5_000, "6a04deadbeef"),
        (6_000, "21" + "02" * 33 + "ac"),
        (7_000, p2tr("d")),
        (21_000_000 * COIN, "0020" + "ab" * 32),
    ]
    payment = make_transaction([first, second], outputs, taproot=True)
    block = make_block(1, "00" * 32, [payment])
    found = read(block)
    coinbase, *transfers = found.transfers
    assert (coinbase.traits, coinbase.ordinal) == (frozenset({Trait.COINBASE}), 0)
    assert [(one.ordinal, one.amount, one.to) for one in transfers] == [
        (at, amount, script)
        for at, (amount, script) in enumerate(outputs)
        if amount and len(script) <= 84 and not script.startswith("6a")
    ]
    spent = (f"{'aa' * 32}:1", f"{'bb' * 32}:0")
    for one in transfers:
        assert (one.tx_hash, one.channel, one.sender, one.contract) == (
            payment.txid,
            Channel.OUTPUT,
            "",
            None,
        )
        assert (one.spend_keys, one.traits) == (spent, frozenset())
    own = block.transactions[0].txid
    assert found.spends == {f"coinbase:{own}": own, spent[0]: payment.txid, spent[1]: payment.txid}


def test_long_counts_and_scripts() -> None:
    """Counts above 252 are written in another way."""
    many = make_transaction([("cc" * 32, at) for at in range(300)], [(1_000, p2tr("many"))] * 66_000)
    script = make_transaction([("dd" * 32, 0)], [(1_000, "51" * 300), (2_000, p2tr("x"))])
    found = read(make_block(1, "00" * 32, [many, script, *filler(260, 300, 1)]))
    assert len([one for one in found.transfers if one.tx_hash == many.txid]) == 66_000
    assert [one.ordinal for one in found.transfers if one.tx_hash == script.txid] == [1]
    assert len([key for key, owner in found.spends.items() if owner == many.txid]) == 300


@pytest.mark.parametrize(
    ("script", "rate", "limit"),
    [
        (p2pkh("a"), 3_000, 546),
        (p2sh("a"), 3_000, 540),
        (p2wpkh("a"), 3_000, 294),
        (p2tr("a"), 3_000, 330),
        ("0020" + "00" * 32, 3_000, 330),
        ("51024e73", 3_000, 240),
        (p2wpkh("a"), 30_000, 2_940),
    ],
)
def test_dust_is_what_nodes_call_so(script: str, rate: int, limit: int) -> None:
    """The limits that are known from Bitcoin Core; litecoind's own verdict is asked in `test_a_real_nodes_dust`."""
    assert dust_limit(script, rate) == limit


def test_dust_is_marked() -> None:
    outputs = [(546, p2pkh("a")), (545, p2pkh("a")), (330, p2tr("a")), (329, p2tr("a")), (1, p2wpkh("a"))]
    payment = make_transaction([("aa" * 32, 0)], outputs)
    found = [
        one for one in read(make_block(1, "00" * 32, [payment])).transfers if one.tx_hash == payment.txid
    ]
    assert [Trait.DUST in one.traits for one in found] == [False, True, False, True, True]


# -- what is wrong


BLOCK = StubCore().extend(filler(5, 12, 3))
HONEST = read(BLOCK)


@given(st.integers(0, len(BLOCK.raw_hex) // 2 - 1), st.integers(1, 255))
@settings(max_examples=400)
def test_no_byte_can_be_changed(place: int, change: int) -> None:
    """Whatever byte of a block is another: it is refused, or it was in a witness, of which nothing is read.

    Bug planted: the comparison with the header's Merkle root left out; changed amounts came out.
    """
    raw = bytearray.fromhex(BLOCK.raw_hex)
    raw[place] ^= change
    try:
        found = read(BLOCK, bytes(raw))
    except SourceIncomplete:
        return
    assert found == HONEST
    assert place > 80


@given(st.integers(0, len(BLOCK.raw_hex) // 2 - 1))
def test_no_byte_can_be_missing(length: int) -> None:
    with pytest.raises(SourceIncomplete):
        read(BLOCK, bytes.fromhex(BLOCK.raw_hex)[:length])


def rebuilt(*parts: bytes) -> bytes:
    """The block's own header before other transactions."""
    return bytes.fromhex(BLOCK.raw_hex)[:80] + compact_size(len(parts)) + b"".join(parts)


def test_no_transaction_can_be_missing_added_doubled_or_moved() -> None:
    """A doubled tail gives the same Merkle root where the number of transactions is even (CVE-2012-2459)."""
    parts = [one.raw for one in BLOCK.transactions]
    assert len(parts) == 6
    assert read(BLOCK, rebuilt(*parts)) == read(BLOCK)
    for wrong in (
        parts[:-1],
        parts[1:],
        parts[:1],
        [*parts, parts[-1]],
        [*parts, *parts[-2:]],
        [*parts, make_transaction([("ee" * 32, 0)], [(1, p2tr("thief"))]).raw],
        [parts[0], *parts[:0:-1]],
        [*parts[1:], parts[0]],
    ):
        with pytest.raises(SourceIncomplete):
            read(BLOCK, rebuilt(*wrong))


def test_a_block_with_a_doubled_tail_is_refused_although_its_root_is_right() -> None:
    """Bug planted: the search for doubled transactions left out; the payment in the tail came twice."""
    parts = [one.raw for one in BLOCK.transactions]
    with pytest.raises(SourceIncomplete, match="twice"):
        read(BLOCK, rebuilt(*parts, *parts[-2:]))


def test_a_block_begins_with_its_only_coinbase() -> None:
    """Also where the header commits to something else: then the node, or its chain, is none of the family's."""
    payment = make_transaction([("aa" * 32, 0)], [(1_000, p2tr("a"))])
    other = make_transaction((), [(1_000, p2tr("b"))], coinbase=b"\x02\x01\x00")
    for wrong in (
        [payment],
        [other, payment, make_transaction((), [(1, p2tr("c"))], coinbase=b"\x02\x02\x00")],
    ):
        block = make_block(1, "00" * 32)
        root = b""
        ids = [bytes.fromhex(one.txid)[::-1] for one in wrong]
        while len(ids) > 1:
            ids += ids[-1:] * (len(ids) % 2)
            ids = [_double(ids[at] + ids[at + 1]) for at in range(0, len(ids), 2)]
        root = ids[0]
        header = bytearray.fromhex(block.raw_hex)[:80]
        header[36:68] = root
        raw = bytes(header) + compact_size(len(wrong)) + b"".join(one.raw for one in wrong)
        with pytest.raises(SourceIncomplete, match="coinbase"):
            checked_block(raw.hex(), _double(bytes(header))[::-1].hex(), 1, BITCOIN)


def _double(data: bytes) -> bytes:
    return sha256(sha256(data).digest()).digest()


def test_two_inputs_cannot_spend_one_output() -> None:
    twins = [make_transaction([("aa" * 32, 0)], [(amount, p2tr("a"))]) for amount in (1_000, 2_000)]
    with pytest.raises(SourceIncomplete, match="spend the same"):
        read(make_block(1, "00" * 32, twins))


def test_bytes_after_the_last_transaction_are_litecoins_only() -> None:
    longer = BLOCK.raw_hex + "00"
    with pytest.raises(SourceIncomplete, match="go on"):
        checked_block(longer, BLOCK.hash, 1, BITCOIN)
    assert checked_block(longer, BLOCK.hash, 1, LITECOIN).transfers == read(BLOCK).transfers


@pytest.mark.parametrize("raw", ["", "zz", "00", "00" * 80, "00" * 100, BLOCK.raw_hex[:160] + "ff" * 9])
def test_what_is_no_block(raw: str) -> None:
    with pytest.raises(SourceIncomplete):
        checked_block(raw, BLOCK.hash, 1, BITCOIN)


@pytest.mark.parametrize("change", ["hash", "merkle_root", "time", "nonce", "bits", "version", "previous"])
def test_a_header_that_does_not_give_its_hash_is_refused(change: str) -> None:
    """Bug planted: the hash that the node names is believed; a header with another time came out."""
    told = msgspec.convert(BLOCK.header(1), HeaderAnswer)
    assert header_of(told) == read(BLOCK).header
    value = getattr(told, change)
    setattr(told, change, value + 1 if isinstance(value, int) else "0f" * (len(value) // 2))
    with pytest.raises(SourceIncomplete):
        header_of(told)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2**31),
        ("time", 2**32),
        ("time", -1),
        ("bits", "zzzzzzzz"),
        ("height", -1),
        ("height", 2**31),
    ],
)
def test_a_header_of_impossible_numbers_is_refused(field: str, value: int | str) -> None:
    told = msgspec.convert(BLOCK.header(1), HeaderAnswer)
    setattr(told, field, value)
    with pytest.raises(SourceIncomplete):
        header_of(told)


# -- on a real node


async def check_against_the_node(node: Litecoind, height: int) -> Block:
    """Our reading of a block's bytes says what the node's own reading of them says."""
    block_hash = await node.hash_at(height)
    block = checked_block(await node.rpc("getblock", block_hash, 0), block_hash, height, LITECOIN)
    told = await node.rpc("getblock", block_hash, 2)
    assert block.header == header_of(msgspec.convert(told, HeaderAnswer))
    expected = [
        (entry["txid"], output["n"], litoshi(output["value"]), output["scriptPubKey"]["hex"])
        for entry in told["tx"]
        for output in entry["vout"]
        if output["value"]
        and not output["scriptPubKey"]["hex"].startswith("6a")
        and len(output["scriptPubKey"]["hex"]) <= 84  # the first block pays a bare key
    ]
    assert [(one.tx_hash, one.ordinal, one.amount, one.to) for one in block.transfers] == expected
    spent = {
        f"coinbase:{entry['txid']}" if "coinbase" in one else f"{one['txid']}:{one['vout']}": entry["txid"]
        for entry in told["tx"]
        for one in entry["vin"]
    }
    assert block.spends == spent
    return block


@pytest.mark.chain
async def test_a_real_nodes_blocks(litecoind: Litecoind) -> None:
    kinds = [await litecoind.new_address(kind) for kind in ("bech32", "p2sh-segwit", "legacy")]
    scripts = [await litecoind.script_of(address) for address in kinds]
    sent = await litecoind.pay([(address, COIN + at) for at, address in enumerate(kinds * 2)])
    spender = await litecoind.spend_child(sent, 1, kinds[0])
    height = await litecoind.mine()
    for number in (0, 1, height - 1):
        await check_against_the_node(litecoind, number)
    block = await check_against_the_node(litecoind, height)
    ours = [one for one in block.transfers if one.tx_hash == sent.txid]
    assert [(one.ordinal, one.to, one.amount) for one in ours][:6] == [
        (at, scripts[at % 3], COIN + at) for at in range(6)
    ]
    assert block.spends[f"{sent.txid}:1"] == spender.txid


@pytest.mark.chain
async def test_a_real_nodes_dust(litecoind: Litecoind) -> None:
    """The node relays what we do not call dust, and nothing below."""
    for kind in ("bech32", "p2sh-segwit", "legacy"):
        address = await litecoind.new_address(kind)
        limit = dust_limit(await litecoind.script_of(address), LITECOIN.dust_rate)
        for amount, relayed in ((limit, True), (limit - 1, False)):
            sent = await litecoind.sign({address: amount})
            (verdict,) = await litecoind.rpc("testmempoolaccept", [sent.raw])
            assert verdict["allowed"] is relayed, (kind, amount, verdict)


@pytest.mark.chain
async def test_a_real_nodes_extension_blocks(litecoind: Litecoind) -> None:
    """F-CHAIN 9: coins go into MWEB, move there, and come out as an output of a HogEx, which is what counts."""
    activated = await litecoind.activate_mweb()
    assert activated == MWEB_HEIGHT
    await check_against_the_node(litecoind, activated)
    address = await litecoind.new_address()
    script = await litecoind.script_of(address)
    await litecoind.rpc("createwallet", "hidden")
    hidden = await litecoind.rpc_in("hidden", "getnewaddress", "", "mweb")
    await litecoind.send(hidden, 3 * COIN)
    height = await litecoind.mine()
    await check_against_the_node(litecoind, height)
    txid = await litecoind.rpc_in("hidden", "sendtoaddress", address, "1.0")
    await litecoind.submit((await litecoind.rpc_in("hidden", "gettransaction", txid))["hex"])
    assert await litecoind.mempool() == [txid]
    block = await check_against_the_node(litecoind, await litecoind.mine())
    (transfer,) = [one for one in block.transfers if one.to == script]
    assert transfer.amount == COIN
    assert transfer.traits == {Trait.PEGOUT}
    assert transfer.tx_hash != txid
    assert txid not in block.spends.values()
    assert all(Trait.PEGOUT not in one.traits for one in block.transfers if one.tx_hash != transfer.tx_hash)

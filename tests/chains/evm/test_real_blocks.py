"""What the EVM source reads from blocks of a real node."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tallystick.chains.evm.blocks import ZERO_ADDRESS
from tallystick.chains.evm.source import EvmOptions, EvmSource
from tallystick.chains.evm.token_info import TokenInfo
from tallystick.core.chain import Channel, ObservedTransfer
from tests.support.evm import Chain, address_of, contract
from tests.support.rpc_stub import stub_address

pytestmark = pytest.mark.chain

SHOP, OTHER = stub_address("shop"), stub_address("other shop")
PAYER = address_of(0)
MAX_UINT256 = 2**256 - 1


@pytest.fixture
async def source(chain: Chain) -> AsyncIterator[EvmSource]:
    source = EvmSource(EvmOptions("local", chain.chain_id, (chain.url,)))
    yield source
    await source.close()


async def newest(chain: Chain, source: EvmSource) -> tuple[ObservedTransfer, ...]:
    """The transfers of a block mined now."""
    return (await source.block_at(await chain.mine())).transfers


async def test_native_payment(chain: Chain, source: EvmSource) -> None:
    signed = await chain.send_native(SHOP, 10**18)
    (transfer,) = await newest(chain, source)
    assert transfer == ObservedTransfer(
        tx_hash=signed.tx_hash,
        channel=Channel.VALUE,
        ordinal=0,
        sender=PAYER,
        to=SHOP,
        contract=None,
        amount=10**18,
        spend_keys=(f"{PAYER}:{signed.nonce}",),
        log_index=None,
    )


async def test_token_payment(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token()
    signed = await chain.send_token(token, SHOP, 49_900_000)
    (transfer,) = await newest(chain, source)
    assert transfer == ObservedTransfer(
        tx_hash=signed.tx_hash,
        channel=Channel.LOG,
        ordinal=0,
        sender=PAYER,
        to=SHOP,
        contract=token,
        amount=49_900_000,
        spend_keys=(f"{PAYER}:{signed.nonce}",),
        log_index=0,
    )


async def test_minting_comes_from_the_zero_address(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token()
    signed = await chain.send_call(token, "DemoToken", "mint", SHOP, 5)
    (transfer,) = await newest(chain, source)
    assert (transfer.sender, transfer.to, transfer.amount) == (ZERO_ADDRESS, SHOP, 5)
    assert transfer.spend_keys == (f"{PAYER}:{signed.nonce}",)


async def test_largest_amount_is_exact(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token(supply=1)
    other = await chain.deploy("DemoToken", "Big", "BIG", 18)
    await chain.mint(other, PAYER, MAX_UINT256)
    await chain.send_token(other, SHOP, MAX_UINT256)
    (transfer,) = await newest(chain, source)
    assert transfer.amount == MAX_UINT256
    assert transfer.contract == other != token


async def test_many_token_payments_in_one_transaction(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token()
    batch = await chain.deploy("Batch")
    await chain.approve(token, batch)
    before = await chain.send_token(token, OTHER, 9)
    signed = await chain.send_call(batch, "Batch", "payTokens", token, [SHOP, OTHER, SHOP], [1, 2, 3])
    first, *batched = await newest(chain, source)
    assert (first.tx_hash, first.ordinal, first.log_index) == (before.tx_hash, 0, 0)
    assert [(entry.to, entry.amount, entry.ordinal) for entry in batched] == [
        (SHOP, 1, 0),
        (OTHER, 2, 1),
        (SHOP, 3, 2),
    ]
    # The ordinal counts the transaction's own logs, the log index those of the block.
    assert [entry.log_index for entry in batched] == [1, 2, 3]
    assert {entry.tx_hash for entry in batched} == {signed.tx_hash}
    assert {entry.spend_keys for entry in batched} == {(f"{PAYER}:{signed.nonce}",)}


async def test_native_value_of_inner_calls_is_not_credited_from_receipts(chain: Chain) -> None:
    """Without traces only what the transaction itself moves is seen."""
    source = EvmSource(EvmOptions("local", chain.chain_id, (chain.url,), traces="off"))
    batch = await chain.deploy("Batch")
    signed = await chain.send_call(batch, "Batch", "payNative", [SHOP, OTHER], [3, 4], value=7)
    try:
        (transfer,) = await newest(chain, source)
    finally:
        await source.close()
    assert (transfer.tx_hash, transfer.to, transfer.amount) == (signed.tx_hash, batch, 7)


async def test_failed_transactions_move_nothing_but_spend(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token(supply=100)
    batch = await chain.deploy("Batch")
    await chain.approve(token, batch)
    too_much = await chain.send_token(token, SHOP, 101)
    undone = await chain.send_call(batch, "Batch", "payTokensAndFail", token, [SHOP], [5])
    with_value = await chain.sign(to=token, value=10**18, data=b"\x01\x02\x03\x04")
    await chain.submit(with_value)
    block = await source.block_at(await chain.mine())
    assert block.transfers == ()
    for signed in (too_much, undone, with_value):
        assert (await chain.receipt(signed.tx_hash))["status"] == "0x0"
        assert block.spends[f"{PAYER}:{signed.nonce}"] == signed.tx_hash


async def test_contract_creation_with_value_pays_nobody(chain: Chain, source: EvmSource) -> None:
    # Creation code that returns an empty contract and accepts value.
    signed = await chain.sign(to=None, value=5, data=bytes.fromhex("60006000f3"))
    await chain.submit(signed)
    block = await source.block_at(await chain.mine())
    assert (await chain.receipt(signed.tx_hash))["status"] == "0x1"
    assert block.transfers == ()
    assert block.spends == {f"{PAYER}:{signed.nonce}": signed.tx_hash}


@pytest.mark.parametrize(("name", "status"), [("FalseToken", "0x1"), ("RevertingToken", "0x0")])
async def test_tokens_that_do_not_move_are_not_transfers(
    chain: Chain, source: EvmSource, name: str, status: str
) -> None:
    token = await chain.deploy(name)
    signed = await chain.send_call(token, name, "transfer", SHOP, 5)
    assert await newest(chain, source) == ()
    assert (await chain.receipt(signed.tx_hash))["status"] == status


async def test_erc721_with_the_same_topic_is_not_a_transfer(chain: Chain, source: EvmSource) -> None:
    collectible = await chain.deploy("Collectible")
    signed = await chain.send_call(collectible, "Collectible", "transfer", SHOP, 7)
    assert await newest(chain, source) == ()
    (log,) = (await chain.receipt(signed.tx_hash))["logs"]
    assert len(log["topics"]) == 4


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("shortData", (SHOP,)),
        ("extraData", (SHOP,)),
        ("noData", (SHOP,)),
        ("allInData", (SHOP, 5)),
        ("dirtyTopic", (SHOP, 5)),
    ],
)
async def test_malformed_transfer_logs_are_ignored(
    chain: Chain, source: EvmSource, function: str, arguments: tuple[object, ...]
) -> None:
    emitter = await chain.deploy("MalformedEmitter")
    token = await chain.deploy_token()
    signed = await chain.send_call(emitter, "MalformedEmitter", function, *arguments)
    await chain.send_token(token, SHOP, 11)
    (transfer,) = await newest(chain, source)
    assert (transfer.contract, transfer.amount, transfer.log_index) == (token, 11, 1)
    receipt = await chain.receipt(signed.tx_hash)
    assert receipt["status"] == "0x1"
    assert len(receipt["logs"]) == 1


async def test_zero_amounts_are_not_reported(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token()
    await chain.send_token(token, SHOP, 0)
    await chain.send_native(SHOP, 0)
    assert await newest(chain, source) == ()


async def test_self_transfers_are_reported(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token()
    await chain.send_token(token, PAYER, 3)
    await chain.send_native(PAYER, 4)
    assert [(entry.sender, entry.to, entry.amount) for entry in await newest(chain, source)] == [
        (PAYER, PAYER, 3),
        (PAYER, PAYER, 4),
    ]


async def test_token_with_the_same_name_has_another_contract(chain: Chain, source: EvmSource) -> None:
    token, fake = await chain.deploy_token(), await chain.deploy_token()
    assert await source.token_info(token) == await source.token_info(fake)
    await chain.send_token(fake, SHOP, 5)
    (transfer,) = await newest(chain, source)
    assert transfer.contract == fake != token


async def test_remined_at_another_log_position(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token()
    signed = await chain.send_token(token, SHOP, 5)
    (before,) = await newest(chain, source)
    in_front = await chain.sign(
        to=token, data=contract("DemoToken").call("mint", OTHER, 1), sender=1, nonce=await chain.nonce(1)
    )
    height = await chain.reorg(1, [(in_front, 0), (signed, 0)])
    transfers = (await source.block_at(height)).transfers
    (after,) = [entry for entry in transfers if entry.tx_hash == signed.tx_hash]
    assert len(transfers) == 2
    assert (before.log_index, before.ordinal) == (0, 0)
    assert (after.log_index, after.ordinal) == (1, 0)


async def test_a_block_of_300_payments(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token()
    batch = await chain.deploy("Batch")
    await chain.approve(token, batch)
    receivers = [stub_address(f"receiver {number}") for number in range(100)]
    for part in range(3):
        await chain.send_call(batch, "Batch", "payTokens", token, receivers, [part * 100 + 1] * 100)
    transfers = await newest(chain, source)
    assert len(transfers) == 300
    assert [entry.log_index for entry in transfers] == list(range(300))
    assert [entry.ordinal for entry in transfers] == [*range(100)] * 3


async def test_finality_follows_the_node(chain: Chain, source: EvmSource) -> None:
    height = await chain.mine_many(100)
    head = await source.head()
    assert head.header.height == height
    assert (head.safe_height, head.finalized_height) == (height - 32, height - 64)


async def test_finality_is_not_asked_for_where_it_is_off(chain: Chain) -> None:
    source = EvmSource(EvmOptions("local", chain.chain_id, (chain.url,), finality_tags=False))
    try:
        await chain.mine_many(100)
        head = await source.head()
    finally:
        await source.close()
    assert (head.safe_height, head.finalized_height) == (None, None)


async def test_token_info(chain: Chain, source: EvmSource) -> None:
    token = await chain.deploy_token("Demo Dollar", "DUSD", 6)
    old = await chain.deploy("OldToken")
    silent = await chain.deploy("Batch")
    rude = await chain.deploy("DemoToken", "x", "bad\nsymbol", 255)
    assert await source.token_info(token) == TokenInfo(6, "DUSD", True)
    assert await source.token_info(old) == TokenInfo(18, "OLD", True)
    assert await source.token_info(silent) == TokenInfo(None, None, True)
    assert await source.token_info(rude) == TokenInfo(255, None, True)
    assert await source.token_info(SHOP) == TokenInfo(None, None, False)

"""Whatever a TRON node answers: what comes of it is right, or a SourceError; never a payment that is not in the block.

F-NODE 1-5, F-TOKEN 5. One answer of an honest node is mutated at one place (`mutations`).

What one node can say that nothing contradicts, and so passes (other nodes are what protects): the head of a block
without its height; of a transaction what `raw_data` tells in words (its id covers the bytes, which are not read), the
outcome of a transfer of TRX, which has no receipt result; and what is in infos besides their results: logs and inner
transactions.

Planted in a copy of the source, and found: ids that are not compared with the bytes; an address whose digits are not
looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.chains.tron.source import TronOptions, TronSource
from tallystick.core.chain import Block, Channel
from tallystick.core.errors import SourceError
from tests.fuzz.effort import effort
from tests.fuzz.mutations import Mutated, mutate
from tests.support.tron_node import CHAIN_ID, TronNode, asset_transfer, call, step, token_payment, transfer

SEEDS = st.integers(0, 2**48)
ADDRESS = re.compile(r"0x[0-9a-f]{40}", re.ASCII)
HASH = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
SHOP, USDT, VAULT = "0x" + "5b" * 20, "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c", "0x" + "7e" * 20
SAID = {"raw_data", "ret", "log", "internal_transactions"}
"""Under these, one node's word stands alone."""

_CHAIN = TronNode()
_CHAIN.mine(blocks=3)
HEIGHT = _CHAIN.mine(
    transfer(SHOP, 5),
    token_payment(USDT, SHOP, 6),
    call(VAULT, inner=[step(VAULT, SHOP, 7), step(VAULT, SHOP, 9, rejected=True)]),
    call(USDT, result="REVERT"),
    asset_transfer(SHOP, 8),
)
METHODS = ("wallet/getblockbynum", "wallet/gettransactioninfobyblocknum")


class Answers:
    """In place of the client: the chain's answers, those of one method with something wrong."""

    name = "127.0.0.1:1"

    def __init__(self, method: str | None, seed: int) -> None:
        self._method = method
        self._seed = seed
        self.mutated: Mutated | None = None

    async def post(self, path: str, body: bytes) -> bytes:
        honest = _CHAIN._answer(path, json.loads(body), None)
        if path != self._method:
            return json.dumps(honest).encode()
        self.mutated = mutate(honest, self._seed)
        return self.mutated.text


async def asked(question: Callable[[TronSource], Awaitable[Any]], answers: Answers) -> Any:
    """The answer, or None for a SourceError. Whatever else is raised is what this test is there to find."""
    source = TronSource(
        TronOptions("tron", CHAIN_ID, ("http://secretword@127.0.0.1:1",), requests_per_second=1e6)
    )
    for node in source._pool.nodes:
        node.client._post = answers.post  # type: ignore[method-assign]
    try:
        return await question(source)
    except SourceError as error:
        said = f"{error} {error.remedy} {error!r}"
        assert "secretword" not in said
        assert len(said) < 2_000
        return None
    finally:
        await source.close()


HONEST: Block = asyncio.run(asked(lambda source: source.block_at(HEIGHT), Answers(None, 0)))
KEYS: Mapping[tuple[str, Channel, int], Any] = {
    (one.tx_hash, one.channel, one.ordinal): one for one in HONEST.transfers
}


def test_the_unmutated_block_holds_what_it_should() -> None:
    """Otherwise the tests below would compare nothing with nothing."""
    assert [(one.channel, one.amount) for one in HONEST.transfers] == [
        (Channel.VALUE, 5), (Channel.LOG, 6), (Channel.TRACE, 7),
    ]  # fmt: skip
    assert HONEST.untraced is None


@pytest.mark.parametrize("method", METHODS)
@given(seed=SEEDS)
@effort(500)
def test_a_block(method: str, seed: int) -> None:
    answers = Answers(method, seed)
    block = asyncio.run(asked(lambda source: source.block_at(HEIGHT), answers))
    if block is None or answers.mutated is None:
        return
    for moved in block.transfers:
        assert HASH.fullmatch(moved.tx_hash)
        assert all(ADDRESS.fullmatch(one) for one in (moved.sender, moved.to))
        assert moved.contract is None or ADDRESS.fullmatch(moved.contract)
        assert 0 < moved.amount < 2**256
    assert block.header.height == HEIGHT
    assert all(HASH.fullmatch(tx_hash) for tx_hash in block.spends.values())
    if method == METHODS[0] and answers.mutated.how != "damaged":
        for told in json.loads(answers.mutated.text)["transactions"]:
            assert hashlib.sha256(bytes.fromhex(told["raw_data_hex"])).hexdigest() == told["txID"].lower()
    alone = SAID & {part for part in answers.mutated.path if isinstance(part, str)}
    alone |= {"anything"} if answers.mutated.how == "damaged" else set()
    if not alone and len(answers.mutated.path) > 1:
        assert block.transfers == HONEST.transfers, answers.mutated
        assert block.spends == HONEST.spends
    for moved in block.transfers:
        key = (moved.tx_hash, moved.channel, moved.ordinal)
        assert key in KEYS or alone, answers.mutated


@pytest.mark.parametrize("path", ["wallet/getblock", "walletsolidity/getblock"])
@given(seed=SEEDS)
@effort(300)
def test_a_head(path: str, seed: int) -> None:
    head = asyncio.run(asked(lambda source: source.head(), Answers(path, seed)))
    if head is not None:
        assert HASH.fullmatch(head.header.hash)
        assert HASH.fullmatch(head.header.parent_hash)
        assert 0 <= head.finalized_height <= head.header.height < 2**63

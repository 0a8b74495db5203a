"""Balances and nonces of accounts at one block.

For: the EVM source. Holds true: all answers are of exactly the block asked for: by its hash (EIP-1898), or, where a
node knows no such parameter, by its number between two looks at the block there.
Must not: take a refusal (history gone, block unknown) for a balance of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tallystick.chains.evm.blocks import header_of
from tallystick.chains.evm.messages import HeaderAnswer, quantity
from tallystick.chains.json_rpc import Answer, Batch, Call, RpcClient, RpcRefused, value_in
from tallystick.core.balance import AccountState
from tallystick.core.chain import BlockRef
from tallystick.core.errors import SourceIncomplete

_BATCH: Final[msgspec.json.Decoder[Batch[msgspec.Raw]]] = msgspec.json.Decoder(
    list[Answer[msgspec.Raw]] | Answer[msgspec.Raw]
)


async def read_accounts(rpc: RpcClient, block: BlockRef, addresses: Sequence[str]) -> list[AccountState]:
    """The accounts (lower-case addresses) in the given order, right after `block`. Raises SourceError."""
    by_hash = {"blockHash": block.hash, "requireCanonical": True}
    try:
        found = await rpc.batch(_calls(addresses, by_hash), _BATCH)
        return _states(found)
    except RpcRefused as refused:
        if not refused.method_missing:
            raise
    look = Call("eth_getBlockByNumber", [hex(block.height), False])
    before, *answers, after = await rpc.batch([look, *_calls(addresses, hex(block.height)), look], _BATCH)
    for answer in (before, after):
        if header_of(value_in(answer, HeaderAnswer)).hash != block.hash:
            raise SourceIncomplete(
                f"The node has another block at height {block.height} than {block.hash}.",
                object_id=rpc.name,
                remedy="Balances are asked for again at a block that it has.",
            )
    return _states(answers)


def _calls(addresses: Sequence[str], block: Any) -> list[Call]:
    return [
        Call(method, [address, block])
        for address in addresses
        for method in ("eth_getBalance", "eth_getTransactionCount")
    ]


def _states(answers: Sequence[msgspec.Raw | RpcRefused]) -> list[AccountState]:
    numbers = [quantity(value_in(answer, str)) for answer in answers]
    return [AccountState(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]

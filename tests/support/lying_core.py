"""A lying proxy before a node of Bitcoin Core's kind: faults that only such a node can have (failures.md, F-NODE).

For: the contract suite and the tests of faults, together with the faults of any node (`lying_proxy.Fault`).
Holds true: without a fault every answer passes as it is. A forged block is consistent in itself: its header hashes to
the hash that it is said to have, and forged blocks stand on each other.
Must not: know what the source does about it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from typing import Any

from tests.support.lying_proxy import Fault, LyingProxy


class CoreFault(StrEnum):
    """What the node does wrong."""

    MISSING_TRANSACTION = "a block comes without its last transaction"
    FOREIGN_TRANSACTION = "a block's last transaction is another block's"
    DOUBLED_TAIL = "a block's last transaction comes twice"
    SWAPPED_TRANSACTIONS = "two transactions change places"
    CHANGED_AMOUNT = "an output's amount is another"
    CHANGED_SCRIPT = "an output's script is another"
    TRUNCATED_BLOCK = "a block's bytes end early"
    LONGER_BLOCK = "a block's bytes go on"
    OTHER_BYTES = "the bytes are those of the block below"
    NOT_HEX = "a block's bytes are not hex"
    EMPTY_BLOCK = "a block's bytes are empty"
    NULL_BLOCK = "a block's bytes are null"
    CHANGED_TIME = "a header's time is another"
    LEFT_CHAIN = "a block is outside the best chain"
    NO_BLOCKS = "no block at that height"
    OTHER_HEIGHT = "the hash of the block below"
    OTHER_BRANCH = "blocks of another branch"
    OTHER_CHAIN = "another chain's name"
    OTHER_GENESIS = "another first block"
    LAGGING = "the newest block is one of ten blocks ago"
    DOWNLOADING = "the chain is still being downloaded"
    WARMING_UP = "the node is still starting"
    PRUNED = "blocks were pruned away"
    MOVING_HEAD = "a block comes while the mempool is read"
    MEMPOOL_NOT_LOADED = "the saved mempool is not loaded"


_LAG = 10
_WRONG_BLOCKS = {
    CoreFault.MISSING_TRANSACTION,
    CoreFault.FOREIGN_TRANSACTION,
    CoreFault.DOUBLED_TAIL,
    CoreFault.SWAPPED_TRANSACTIONS,
    CoreFault.CHANGED_AMOUNT,
    CoreFault.CHANGED_SCRIPT,
}
_TEXT_CHANGES: dict[CoreFault, Callable[[str], Any]] = {
    CoreFault.TRUNCATED_BLOCK: lambda raw: raw[: len(raw) // 4 * 2],
    CoreFault.LONGER_BLOCK: lambda raw: raw + "00",
    CoreFault.NOT_HEX: lambda raw: "zz" + raw[2:],
    CoreFault.EMPTY_BLOCK: lambda _: "",
    CoreFault.NULL_BLOCK: lambda _: None,
}


class LyingCore(LyingProxy):
    """Serves the node under `url`. Use as an asynchronous context manager; `upstream` holds the credentials."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self._core_fault: CoreFault | None = None
        self._since = 0
        self._forged: dict[str, dict[str, Any]] = {}

    async def lie_so(self, fault: CoreFault | Fault | None) -> None:
        """Do this wrong from now on, and from the present block on."""
        self._core_fault = fault if isinstance(fault, CoreFault) else None
        self.lie(fault if isinstance(fault, Fault) else None)
        self._since = int(await self.ask("getblockcount"))
        self._forged = {}

    async def ask(self, method: str, *params: Any) -> Any:
        """What the node itself answers."""
        question = {"id": 0, "method": method, "params": params}
        async with self._session.post(self.upstream, json=question) as response:
            return (await response.json(content_type=None))["result"]

    async def twisted(self, question: Any, body: bytes) -> bytes:
        """The answers with what is wrong about them."""
        if self._core_fault is None:
            return body
        answers = json.loads(body)
        if isinstance(question, dict):
            await self._twist(question["method"], question["params"], answers)
        else:
            for call, answer in zip(question, answers, strict=True):
                await self._twist(call["method"], call["params"], answer)
            if self._core_fault is CoreFault.MOVING_HEAD:
                asked = [
                    answers[at] for at, call in enumerate(question) if call["method"] == "getbestblockhash"
                ]
                for answer in asked[1:]:
                    answer["result"] = "ee" * 32
        return json.dumps(answers).encode()

    async def _twist(self, method: str, params: list[Any], answer: dict[str, Any]) -> None:
        fault = self._core_fault
        assert fault is not None
        if fault is CoreFault.WARMING_UP:
            _refuse(answer, -28, "Loading block index…")
        elif method == "getblockchaininfo":
            await self._twist_info(fault, answer["result"])
        elif method == "getblockhash":
            await self._twist_hash(fault, int(params[0]), answer)
        elif method == "getblockheader":
            self._twist_header(fault, params[0], answer)
        elif method == "getblock" and params[1] == 0:
            await self._twist_block(fault, params[0], answer)
        elif method == "getmempoolinfo" and fault is CoreFault.MEMPOOL_NOT_LOADED:
            answer["result"]["loaded"] = False

    async def _twist_info(self, fault: CoreFault, info: dict[str, Any]) -> None:
        match fault:
            case CoreFault.OTHER_CHAIN:
                info["chain"] = "main"
            case CoreFault.LAGGING:
                info["blocks"] -= _LAG
                info["bestblockhash"] = await self.ask("getblockhash", info["blocks"])
            case CoreFault.DOWNLOADING:
                info["initialblockdownload"], info["headers"] = True, info["blocks"] + 1_000
            case CoreFault.OTHER_BRANCH:
                info["bestblockhash"] = await self._forge(info["blocks"])
            case _:
                pass

    async def _twist_hash(self, fault: CoreFault, height: int, answer: dict[str, Any]) -> None:
        if answer.get("result") is None:
            return
        head = 0 if fault is CoreFault.NO_BLOCKS else int(await self.ask("getblockcount"))
        if height > head - (_LAG if fault is CoreFault.LAGGING else 0):
            _refuse(answer, -8, "Block height out of range")
        elif fault is CoreFault.OTHER_HEIGHT and height > 0:
            answer["result"] = await self.ask("getblockhash", height - 1)
        elif fault is CoreFault.OTHER_GENESIS and height == 0:
            answer["result"] = "ee" * 32
        elif fault is CoreFault.OTHER_BRANCH:
            answer["result"] = await self._forge(height)

    def _twist_header(self, fault: CoreFault, block_hash: str, answer: dict[str, Any]) -> None:
        if block_hash in self._forged:
            answer["result"], answer["error"] = self._forged[block_hash], None
        elif fault is CoreFault.CHANGED_TIME:
            answer["result"]["time"] += 1
        elif fault is CoreFault.LEFT_CHAIN:
            answer["result"]["confirmations"] = -1

    async def _twist_block(self, fault: CoreFault, block_hash: str, answer: dict[str, Any]) -> None:
        if fault is CoreFault.PRUNED:
            _refuse(answer, -1, "Block not available (pruned data)")
        elif fault is CoreFault.OTHER_BYTES:
            below = (await self.ask("getblockheader", block_hash))["previousblockhash"]
            answer["result"] = await self.ask("getblock", below, 0)
        elif fault in _TEXT_CHANGES:
            answer["result"] = _TEXT_CHANGES[fault](answer["result"])
        elif fault in _WRONG_BLOCKS:
            told = await self.ask("getblock", block_hash, 2)
            parts = [bytes.fromhex(entry["hex"]) for entry in told["tx"]]
            if fault is CoreFault.FOREIGN_TRANSACTION:
                below = await self.ask("getblock", told["previousblockhash"], 2)
                parts[-1] = bytes.fromhex(below["tx"][0]["hex"])
            else:
                parts = _WRONG_PARTS[fault](parts)
            head = bytes.fromhex(answer["result"])[:80]
            answer["result"] = (head + bytes([len(parts)]) + b"".join(parts)).hex()

    async def _forge(self, height: int) -> str:
        """The hash of this node's own block at a height: the true one up to where the lie began."""
        true_hash: str = await self.ask("getblockhash", height)
        if height <= self._since:
            return true_hash
        told = await self.ask("getblockheader", true_hash)
        told["previousblockhash"] = await self._forge(height - 1)
        told["nonce"] ^= 1
        told["hash"] = header_hash(told)
        self._forged[told["hash"]] = told
        return str(told["hash"])


def header_hash(told: dict[str, Any]) -> str:
    """The hash of a header as `getblockheader` tells it."""
    packed = b"".join(
        (
            told["version"].to_bytes(4, "little", signed=True),
            bytes.fromhex(told.get("previousblockhash", "00" * 32))[::-1],
            bytes.fromhex(told["merkleroot"])[::-1],
            told["time"].to_bytes(4, "little"),
            int(told["bits"], 16).to_bytes(4, "little"),
            told["nonce"].to_bytes(4, "little"),
        )
    )
    return sha256(sha256(packed).digest()).digest()[::-1].hex()


def _refuse(answer: dict[str, Any], code: int, message: str) -> None:
    answer["result"], answer["error"] = None, {"code": code, "message": message}


def _changed_amount(parts: list[bytes]) -> list[bytes]:
    """The amount of the last output of the last transaction stands 8 bytes before its script's length."""
    last = parts[-1]
    # Any amount of ours has a low byte that can be raised: find the script's marker (0x16 0x0014) from the end.
    place = last.rindex(b"\x16\x00\x14") - 8
    return [*parts[:-1], last[:place] + bytes([last[place] ^ 1]) + last[place + 1 :]]


def _changed_script(parts: list[bytes]) -> list[bytes]:
    last = parts[-1]
    place = last.rindex(b"\x16\x00\x14") + 3
    return [*parts[:-1], last[:place] + bytes([last[place] ^ 1]) + last[place + 1 :]]


_WRONG_PARTS: dict[CoreFault, Callable[[list[bytes]], list[bytes]]] = {
    CoreFault.MISSING_TRANSACTION: lambda parts: parts[:-1],
    CoreFault.DOUBLED_TAIL: lambda parts: [*parts, parts[-1]],
    CoreFault.SWAPPED_TRANSACTIONS: lambda parts: [*parts[:-2], parts[-1], parts[-2]],
    CoreFault.CHANGED_AMOUNT: _changed_amount,
    CoreFault.CHANGED_SCRIPT: _changed_script,
}

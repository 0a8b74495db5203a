"""The answers of a node of Bitcoin Core's kind, as typed structs holding only the fields that are used.

For: fast decoding; msgspec fills these straight from the bytes and skips every other field.
Holds true: amounts are read from the text of their numbers, never through a float. Fields that some versions leave
out (0.21 to 30, and Litecoin's 0.21) are optional here. Blocks and transactions are not here: they are read from their
bytes (`transactions`), which are the same in every version.
Must not: give meaning to what it holds.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct

Hash = Annotated[str, Meta(min_length=64, max_length=64)]


class ChainInfo(Struct, rename={"best": "bestblockhash", "downloading": "initialblockdownload"}, gc=False):
    """`getblockchaininfo`: the chain's name in Core's own terms, and how far the node has come."""

    chain: str
    blocks: int
    headers: int
    best: Hash
    downloading: bool = False
    pruned: bool = False


class HeaderAnswer(Struct, rename={"previous": "previousblockhash", "merkle_root": "merkleroot"}, gc=False):
    """`getblockheader`, and the head of `getblock`. `confirmations` is -1 for a block outside the best chain.

    The first block names none before it.
    """

    hash: Hash
    height: int
    version: int
    merkle_root: Hash
    time: int
    nonce: int
    bits: Annotated[str, Meta(min_length=8, max_length=8)]
    confirmations: int
    previous: Hash | None = None


class ListedBlock(Struct, rename={"previous": "previousblockhash"}, gc=False):
    """`getblock` with verbosity 1: the ids of its transactions."""

    tx: list[Hash]
    previous: Hash | None = None


class MempoolInfo(Struct, rename={"full_rbf": "fullrbf", "bare_multisig": "permitbaremultisig"}, gc=False):
    """`getmempoolinfo`. `loaded` false: the node has not read its saved mempool yet. `full_rbf` came with 24."""

    loaded: bool = True
    full_rbf: bool | None = None
    bare_multisig: bool | None = None

    @property
    def takes_any_replacement(self) -> bool:
        """Whether the node takes every replacement that pays more, whatever a transaction says of itself.

        Core does so since 29 without a choice, and stopped telling it in 2026 (its change 34911). By then it told
        `permitbaremultisig` as well, which nodes do not that are too old to know `fullrbf` (Core 23, Litecoin's 0.21).
        """
        return self.full_rbf if self.full_rbf is not None else self.bare_multisig is not None


class MempoolEntry(Struct, rename={"replaceable": "bip125-replaceable"}, gc=False):
    """`getmempoolentry`: whether the transaction, or one that it rests on, says that it may be replaced."""

    replaceable: bool = True


class FeeEstimate(Struct, gc=False):
    """`estimatesmartfee`: coins per 1,000 vbytes; absent where the node has seen too little to say."""

    feerate: Decimal | None = None

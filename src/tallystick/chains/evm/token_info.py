"""What a token contract says about itself.

For: `doctor`, and the comparison of decimals when a token is enabled.
Holds true: everything here is the contract's own claim. Decimals must equal the configured ones; a symbol is
foreign text that anybody can copy, shown to people only.
Must not: be taken as proof of which token it is: that is its address alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tallystick.chains.json_rpc import Call, RpcRefused, value_in
from tallystick.core.errors import SourceIncomplete

_SYMBOL_LENGTH_MAX: Final = 64
_ANSWER_BYTES_MAX: Final = 4096
# Function selectors of the optional metadata in EIP-20: decimals() and symbol().
_DECIMALS_SELECTOR: Final = "0x313ce567"
_SYMBOL_SELECTOR: Final = "0x95d89b41"


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What a contract says about itself (EIP-20); the symbol proves nothing. None: it does not say."""

    decimals: int | None
    symbol: str | None
    has_code: bool


def token_calls(contract: str) -> list[Call]:
    """The questions to ask about a contract (lower-case address), as one batch."""
    return [
        Call("eth_getCode", [contract, "latest"]),
        Call("eth_call", [{"to": contract, "data": _DECIMALS_SELECTOR}, "latest"]),
        Call("eth_call", [{"to": contract, "data": _SYMBOL_SELECTOR}, "latest"]),
    ]


def token_info_in(answers: Sequence[msgspec.Raw | RpcRefused]) -> TokenInfo:
    """What the answers to `token_calls` say. Raises RpcRefused or SourceIncomplete."""
    code, decimals, symbol = answers
    for answer in answers:
        # A contract without these functions makes the call fail; a node that wants a pause is another matter.
        if isinstance(answer, RpcRefused) and (answer is code or answer.limited):
            raise answer
    return TokenInfo(
        decimals=decimals_in(_bytes_in(decimals)),
        symbol=symbol_in(_bytes_in(symbol)),
        has_code=bool(_bytes_in(code)),
    )


def _bytes_in(answer: msgspec.Raw | RpcRefused) -> bytes:
    """The bytes of a hex answer; empty if the call was refused. Raises SourceIncomplete."""
    if isinstance(answer, RpcRefused):
        return b""
    text = value_in(answer, str)
    try:
        if text.startswith("0x"):
            return bytes.fromhex(text[2:])
    except ValueError:
        pass
    raise SourceIncomplete("The node's answer is not hex data.", remedy="It is asked again.")


def decimals_in(data: bytes) -> int | None:
    """A uint8 in its 32-byte word (Solidity ABI)."""
    value = int.from_bytes(data, "big")
    return value if len(data) == 32 and value < 256 else None


def symbol_in(data: bytes) -> str | None:
    """A `string`, or the `bytes32` of some old contracts. Foreign text: cut, and only if it is printable."""
    from eth_abi.abi import decode  # slow to import, and rarely needed
    from eth_abi.exceptions import DecodingError

    if len(data) > _ANSWER_BYTES_MAX:
        return None
    try:
        text = data.rstrip(b"\0").decode() if len(data) == 32 else str(decode(["string"], data)[0])
    except (DecodingError, UnicodeDecodeError, OverflowError):
        return None
    return text if 0 < len(text) <= _SYMBOL_LENGTH_MAX and text.isprintable() else None

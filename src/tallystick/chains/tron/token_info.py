"""What a TRC-20 contract says about itself, by the nodes' own interface.

For: `doctor`. Holds true: everything here is the contract's own claim, as on EVM networks (`evm.token_info`).
Must not: be taken as proof of which token it is: that is its address alone.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tallystick.chains.evm.token_info import TokenInfo, decimals_in, symbol_in
from tallystick.chains.tron.addresses import with_prefix
from tallystick.chains.tron.http import TronClient
from tallystick.chains.tron.messages import CallAnswer

_PATH: Final = "wallet/triggerconstantcontract"
_NO_CONTRACT: Final = "CONTRACT_VALIDATE_ERROR"
_ANSWER: Final = msgspec.json.Decoder(CallAnswer)


async def read_token_info(client: TronClient, contract: str) -> TokenInfo:
    """Decimals and symbol of the contract at an address in normal form, now. Raises SourceError."""
    decimals = await _returned(client, contract, "decimals()")
    if decimals is None:
        return TokenInfo(decimals=None, symbol=None, has_code=False)
    symbol = await _returned(client, contract, "symbol()")
    return TokenInfo(decimals=decimals_in(decimals), symbol=symbol_in(symbol or b""), has_code=True)


async def _returned(client: TronClient, contract: str, function: str) -> bytes | None:
    """What the contract's function returns, nothing if it has none; None where there is no contract."""
    address = with_prefix(contract)
    question: dict[str, Any] = {
        "owner_address": address,
        "contract_address": address,
        "function_selector": function,
        "parameter": "",
    }
    answer = await client.ask(_PATH, question, _ANSWER)
    if answer.error is not None:
        raise client.refused(_PATH, answer.error)
    if answer.outcome.code == _NO_CONTRACT:
        return None
    try:
        return bytes.fromhex("".join(answer.results[:1]))
    except ValueError:
        return b""

"""What TRON wallets open, and what they complete and sign.

For: the checkout page's link and QR code, and refunds that a merchant signs.

What wallets read. There is no standard: TRON's proposals (TIPs) define no payment link, although "TIP-17" is often
named as one (it is about energy limits). What is used grew by itself:

- The bare address. Every wallet and exchange reads it, and shows it in its own QR codes. TronLink, the most used, takes
  nothing else where an address is scanned: `tron:` in front of it is "Incorrect account address format" (reports of
  2026). So that is what a QR code should hold: `qr_text`.
- `tron:ADDRESS?amount=12.5`, proposed for TRON's explorer in 2018, in whole TRX; read by some (payment plug-ins write
  it). It is the link for "open in wallet": a bare address is no link.
- For tokens no two agree on a parameter that names the contract. A wallet that does not know the parameter, but does
  know `amount`, offers so many TRX instead of so many USDT. So a token's link names the address only, and the customer
  picks the token and types the amount that the page shows beside it.
- TronLink's own links (`tronlinkoutside://`) work only for sites that its makers have listed; Trust Wallet's are for
  Trust Wallet only. Neither belongs into a code that anybody may scan.

Holds true: an amount stands in a link only where it cannot be taken for another coin's. Must not: round, or know what
is owed.
"""

from __future__ import annotations

from typing import Any, Final

from tallystick.chains.evm.keccak import keccak256
from tallystick.chains.tron.addresses import display
from tallystick.core.errors import InvalidInput
from tallystick.core.money import AMOUNT_MAX, format_units

TRX_DECIMALS: Final = 6
SUN_MAX: Final = 2**63 - 1
"""Amounts of TRX are signed 64-bit numbers of sun in the protocol (`TransferContract.amount`)."""

FEE_LIMIT_SUN: Final = 100_000_000
"""What a token transfer may cost at most (100 TRX): several times what one needs, so that it does not fail for want of
energy and yet cannot empty the sender's account. A limit, not a price: what is not used is not taken."""

SELECTOR: Final = "transfer(address,uint256)"
_SELECTOR_BYTES: Final = keccak256(SELECTOR.encode())[:4]


def payment_uri(*, to: str, amount: int, contract: str | None = None) -> str:
    """The link that pays `to`: with the amount for TRX (`amount` in sun), without it for a token.

    Raises InvalidInput for an address that is not one, or an amount out of range.
    """
    _require_amount(amount, contract)
    address = display(to)
    if contract is not None:
        return f"tron:{address}"
    return f"tron:{address}?amount={format_units(amount, TRX_DECIMALS)}"


def unsigned_transaction(
    *, chain_id: int, to: str, amount: int, contract: str | None = None
) -> dict[str, Any]:
    """The transaction that pays `amount` base units to `to`, as far as it is fixed without a node.

    Field names are those of the node's interface (`/wallet/createtransaction`, `/wallet/triggersmartcontract`) and of
    the protocol's `TransferContract` and `TriggerSmartContract`, addresses in base58check (`visible`), amounts decimal
    strings of sun or base units. The wallet adds the sender (`owner_address`), the block that it refers to and its
    expiry, and signs. For a token `parameter` is the two arguments of `transfer` by the Solidity ABI in hex, `data` the
    whole call. Raises InvalidInput like `payment_uri`.
    """
    from eth_abi.abi import encode  # slow to import, and refunds are rare

    _require_amount(amount, contract)
    known: dict[str, Any] = {"chain_id": chain_id, "visible": True, "owner_address": None}
    if contract is None:
        return known | {"type": "TransferContract", "to_address": display(to), "amount": str(amount)}
    parameter = encode(["address", "uint256"], [to, amount])
    return known | {
        "type": "TriggerSmartContract",
        "contract_address": display(contract),
        "function_selector": SELECTOR,
        "parameter": parameter.hex(),
        "data": (_SELECTOR_BYTES + parameter).hex(),
        "call_value": "0",
        "fee_limit": str(FEE_LIMIT_SUN),
    }


def _require_amount(amount: int, contract: str | None) -> None:
    if not 0 < amount <= (SUN_MAX if contract is None else AMOUNT_MAX):
        raise InvalidInput("A payment request needs an amount above zero that the network can carry.")

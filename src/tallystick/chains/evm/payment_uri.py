"""Payment requests that EVM wallets open or sign: EIP-681 links, and unsigned transactions.

For: the checkout page's link and QR code, and refunds that a merchant signs.
Holds true: chain id, receiver and amount are always in the URI, so that a wallet cannot pay on another chain
or another amount by default. Amounts are plain integers of base units (no exponent: not every wallet reads
one). Addresses carry their checksum.
Must not: round, or know what is owed.
"""

from __future__ import annotations

from typing import Any, Final

from tallystick.chains.evm.addresses import display
from tallystick.chains.evm.keccak import keccak256
from tallystick.core.errors import InvalidInput
from tallystick.core.money import AMOUNT_MAX


def payment_uri(*, chain_id: int, to: str, amount: int, contract: str | None = None) -> str:
    """The URI that pays `amount` base units to `to`: of the token at `contract`, or the native coin.

    Raises InvalidInput for an address that is not one, or numbers out of range.
    """
    if chain_id < 1 or not 0 < amount <= AMOUNT_MAX:
        raise InvalidInput("A payment request needs a chain id and an amount above zero.")
    if contract is None:
        return f"ethereum:{display(to)}@{chain_id}?value={amount}"
    return f"ethereum:{display(contract)}@{chain_id}/transfer?address={display(to)}&uint256={amount}"


_TRANSFER: Final = keccak256(b"transfer(address,uint256)")[:4]


def unsigned_transaction(
    *, chain_id: int, to: str, amount: int, contract: str | None = None
) -> dict[str, Any]:
    """The transaction that pays `amount` base units to `to`, as far as it is fixed: a wallet adds sender, nonce, fee.

    `value` is a decimal string of wei, `data` 0x-hex: for a token the call of ERC-20's `transfer` (EIP-20), encoded by
    the Solidity ABI. Raises InvalidInput like `payment_uri`.
    """
    from eth_abi.abi import encode  # slow to import, and refunds are rare

    if chain_id < 1 or not 0 < amount <= AMOUNT_MAX:
        raise InvalidInput("A payment request needs a chain id and an amount above zero.")
    known: dict[str, Any] = {"type": "0x2", "chain_id": chain_id, "from": None}
    if contract is None:
        return known | {"to": display(to), "value": str(amount), "data": "0x"}
    data = _TRANSFER + encode(["address", "uint256"], [display(to), amount])
    return known | {"to": display(contract), "value": "0", "data": f"0x{data.hex()}"}

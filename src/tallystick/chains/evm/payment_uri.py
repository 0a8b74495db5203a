"""Payment requests that EVM wallets open: EIP-681.

For: the checkout page's link and QR code, and refunds that a merchant signs.
Holds true: chain id, receiver and amount are always in the URI, so that a wallet cannot pay on another chain
or another amount by default. Amounts are plain integers of base units (no exponent: not every wallet reads
one). Addresses carry their checksum.
Must not: round, or know what is owed.
"""

from __future__ import annotations

from tallystick.chains.evm.addresses import display
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

"""Payment requests that Bitcoin wallets sign: PSBTs (BIP 174) from a wallet's public descriptor.

For: refunds. Holds true: every input's script is the one that the descriptor derives for its index, and the change goes
to the same wallet; what comes out and the fee are exactly what `choosing` decided; nothing private is in it. Inputs
signal that they may be replaced (BIP 125), so that the wallet can raise the fee. Inputs and outputs stand in the order
of BIP 69: nobody learns from it which output is the change. The same question has the same answer.
Must not: choose outputs (`choosing` does), ask a node, or sign.

Inputs with a witness carry the output they spend (amount and script). One without a witness needs the whole transaction
before it, which we do not have: the wallet that signs fills it in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from embit.descriptor import Descriptor
from embit.psbt import PSBT, DerivationPath
from embit.script import Script
from embit.transaction import Transaction, TransactionInput, TransactionOutput

from tallystick.chains.bitcoin import choosing
from tallystick.chains.bitcoin.choosing import Choice, Costs, Shortage, Unspent
from tallystick.core.errors import InvalidInput

REPLACEABLE: Final = 0xFFFFFFFD
"""The sequence number that signals replaceability (BIP 125) and locks no time (BIP 68)."""

_EXTERNAL: Final = 0
_INTERNAL: Final = 1


@dataclass(frozen=True, slots=True)
class Payment:
    """What is to be paid: to an output script (lower-case hex), so many base units, at base units per 1,000 vbytes."""

    family: str
    script: str
    amount: int
    fee_rate: int


@dataclass(frozen=True, slots=True)
class Built:
    """A PSBT in base64, and what it spends, pays as fee and gives back. Base units."""

    text: str
    choice: Choice


def build(descriptor: str, unspent: Iterable[Unspent], payment: Payment) -> Built | Shortage:
    """A PSBT that makes the payment from these outputs of the descriptor's wallet, or why they do not suffice.

    `descriptor` is public and ranged, with its keys as xpub. Change goes to branch 1 where the descriptor has two
    (`<0;1>/*`), at the first input's index, else back to the first input's own script. Raises InvalidInput for an
    output that is not the descriptor's.
    """
    least = choosing.dust_limit(payment.family, payment.script)
    if payment.amount < least:
        return Shortage(f"Nodes do not relay less than {least} base units to this address.")
    wallet = Descriptor.from_string(descriptor)
    costs = costs_of(wallet, payment)
    choice = choosing.choose(unspent, payment.amount, costs)
    if isinstance(choice, Shortage):
        return choice
    return Built(_write(wallet, choice, payment), choice)


def costs_of(wallet: Descriptor, payment: Payment) -> Costs:
    """What a payment from this wallet costs. The kind of its scripts is the same for every index."""
    sample = wallet.derive(0, branch_index=_EXTERNAL)
    change = sample.script_pubkey().data
    witness_script = sample.witness_script()
    kind: str = sample.scriptpubkey_type()
    if sample.sh:
        kind = "p2sh-p2wpkh" if sample.is_pkh else "p2sh-p2wsh"
    return Costs(
        input_weight=choosing.input_weight(
            kind,
            signatures=1 if witness_script is None else sample.miniscript.args[0].num,
            witness_script_bytes=0 if witness_script is None else len(witness_script.data),
        ),
        segwit=bool(sample.is_segwit),
        destination_bytes=choosing.output_bytes(len(payment.script) // 2),
        change_bytes=choosing.output_bytes(len(change)),
        change_min=choosing.dust_limit(payment.family, change.hex()),
        fee_rate=payment.fee_rate,
    )


def _write(wallet: Descriptor, choice: Choice, payment: Payment) -> str:
    derived = [wallet.derive(one.index, branch_index=_EXTERNAL) for one in choice.inputs]
    for one, source in zip(choice.inputs, derived, strict=True):
        if source.script_pubkey().data.hex() != one.script:
            raise InvalidInput(f"The output {one.txid}:{one.vout} is not of the wallet's key {one.index}.")
    outputs: list[tuple[int, bytes, Descriptor | None]] = [
        (payment.amount, bytes.fromhex(payment.script), None)
    ]
    if choice.change:
        first = choice.inputs[0]
        change = wallet.derive(first.index, branch_index=_INTERNAL) if wallet.num_branches > 1 else derived[0]
        outputs.append((choice.change, change.script_pubkey().data, change))
    outputs.sort(key=lambda output: output[:2])
    inputs = [
        TransactionInput(bytes.fromhex(one.txid), one.vout, sequence=REPLACEABLE) for one in choice.inputs
    ]
    transaction = Transaction(
        version=2,
        vin=inputs,
        vout=[TransactionOutput(amount, Script(script)) for amount, script, _ in outputs],
        locktime=0,
    )
    psbt = PSBT(transaction)
    for scope, one, source in zip(psbt.inputs, choice.inputs, derived, strict=True):
        if source.is_segwit:
            scope.witness_utxo = TransactionOutput(one.amount, Script(bytes.fromhex(one.script)))
        _describe(scope, source)
    for scope, (_, _, owner) in zip(psbt.outputs, outputs, strict=True):
        if owner is not None:
            _describe(scope, owner)
    text: str = psbt.to_base64()
    return text


def _describe(scope: Any, derived: Descriptor) -> None:
    """Say how an input or output of the wallet comes from its keys: scripts, and each key's path from its origin.

    A key without an origin counts as the master of its own path, as in Core's descriptors.
    """
    scope.redeem_script = derived.redeem_script()
    scope.witness_script = derived.witness_script()
    for key in derived.keys:
        public = key.get_public_key()
        path = DerivationPath(key.origin.fingerprint, key.origin.derivation)
        if derived.is_taproot:
            scope.taproot_internal_key = public
            scope.taproot_bip32_derivations[public] = ([], path)
        else:
            scope.bip32_derivations[public] = path

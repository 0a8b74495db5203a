"""PSBTs of every kind of wallet: what is in them, what they weigh once signed, and that nothing private is.

Signed and finished here by the library's own keys; `tests/scenarios/litecoin` has a real node sign and mine them.
Planted bugs seen to fail: change at branch 0; witnesses' weight left out; the script of an input not compared; the
weights of two kinds of input exchanged; an origin's path left out; dust sent.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import pytest
from embit.bip32 import HDKey
from embit.descriptor import Descriptor
from embit.finalizer import finalize_psbt
from embit.psbt import PSBT
from embit.script import Script
from embit.transaction import Transaction, TransactionInput, TransactionOutput
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.chains.bitcoin.choosing import Shortage, Unspent, fee_bounds
from tallystick.chains.bitcoin.psbt import REPLACEABLE, Built, Payment, build, costs_of
from tallystick.core.errors import InvalidInput

ROOTS = [HDKey.from_seed(hashlib.sha256(bytes([number])).digest()) for number in range(3)]
DESTINATION = "0014" + "ab" * 20


def origin(root: HDKey, path: str) -> str:
    fingerprint: str = root.my_fingerprint.hex()
    return f"[{fingerprint}{path[1:]}]{root.derive(path).to_public().to_base58()}"


def multisig(kind: str, count: int, path: str = "m/48h/0h/0h/2h") -> str:
    keys = ",".join(f"{origin(root, path)}/<0;1>/*" for root in ROOTS[:count])
    return f"wsh({kind}(2,{keys}))"


WALLETS = {
    "p2wpkh": f"wpkh({origin(ROOTS[0], 'm/84h/0h/0h')}/<0;1>/*)",
    "p2sh-p2wpkh": f"sh(wpkh({origin(ROOTS[0], 'm/49h/0h/0h')}/<0;1>/*))",
    "p2pkh": f"pkh({origin(ROOTS[0], 'm/44h/0h/0h')}/<0;1>/*)",
    "p2tr": f"tr({origin(ROOTS[0], 'm/86h/0h/0h')}/<0;1>/*)",
    "multi": multisig("multi", 2),
    "sortedmulti": multisig("sortedmulti", 3),
    "sh-wsh": f"sh({multisig('sortedmulti', 3)})",
    "no origin, one branch": f"wpkh({ROOTS[0].derive('m/84h/0h/0h').to_public().to_base58()}/0/*)",
}


@dataclass(frozen=True)
class Funds:
    """Unspent outputs of a wallet, with the transactions that made them."""

    unspent: list[Unspent]
    before: dict[str, Transaction]


def funds(descriptor: str, amounts: list[int], first_index: int = 0) -> Funds:
    wallet = Descriptor.from_string(descriptor)
    known, before = [], {}
    for number, amount in enumerate(amounts):
        index = first_index + 7 * number
        script = wallet.derive(index, branch_index=0).script_pubkey()
        made = Transaction(
            vin=[TransactionInput(hashlib.sha256(bytes([number])).digest(), 0)],
            vout=[TransactionOutput(4_321, Script(b"\x51")), TransactionOutput(amount, script)],
        )
        txid = made.txid().hex()
        before[txid] = made
        known.append(Unspent(txid, 1, amount, script.data.hex(), index))
    return Funds(known, before)


def made(descriptor: str, known: list[Unspent], amount: int, fee_rate: int = 2_000) -> Built:
    built = build(descriptor, known, Payment("bitcoin", DESTINATION, amount, fee_rate))
    assert isinstance(built, Built)
    return built


def signed(psbt: PSBT, before: dict[str, Transaction]) -> Transaction:
    """The finished transaction, signed with the two roots that every wallet here is satisfied with.

    A key without an origin is the master of its own path, so the account's key signs for it.
    """
    for scope in psbt.inputs:
        if scope.witness_utxo is None:
            scope.non_witness_utxo = before[scope.txid.hex()]  # what a wallet fills in
            scope.verify()
    for root in (*ROOTS[:2], ROOTS[0].derive("m/84h/0h/0h")):
        psbt.sign_with(root)
    transaction = finalize_psbt(psbt)
    assert transaction is not None
    return transaction


def weight(transaction: Transaction) -> int:
    whole = len(transaction.serialize())
    for one in transaction.vin:
        one.witness.items = []
    stripped = len(transaction.serialize())
    return 3 * stripped + whole


@pytest.mark.parametrize("name", WALLETS)
@settings(deadline=None, max_examples=6)
@given(
    st.lists(st.integers(20_000, 10**7), min_size=1, max_size=5),
    st.integers(1, 99),
    st.integers(1_000, 9_999),
)
def test_signed_it_pays_what_was_asked_at_the_rate_asked(
    name: str, amounts: list[int], percent: int, fee_rate: int
) -> None:
    """The estimate is never below the real weight, and above it by what signatures may be shorter only."""
    held = funds(WALLETS[name], amounts)
    amount = sum(amounts) * percent // 200 + 300
    built = made(WALLETS[name], held.unspent, amount, fee_rate)
    transaction = signed(PSBT.from_string(built.text), held.before)
    spent = [(one.txid.hex(), one.vout) for one in transaction.vin]
    assert spent == [one.outpoint for one in built.choice.inputs]
    paid = {output.script_pubkey.data.hex(): output.value for output in transaction.vout}
    assert paid.pop(DESTINATION) == amount
    assert sum(paid.values()) == built.choice.change
    assert sum(one.amount for one in built.choice.inputs) == amount + built.choice.change + built.choice.fee
    wallet = Descriptor.from_string(WALLETS[name])
    costs = costs_of(wallet, Payment("bitcoin", DESTINATION, amount, fee_rate))
    least, most = fee_bounds(len(spent), costs)
    assert least <= built.choice.fee < most
    if built.choice.change:
        virtual_bytes = -(-weight(transaction) // 4)
        assert virtual_bytes * fee_rate / 1000 <= built.choice.fee
        slack = 1 + len(spent) * 2 * len(list(wallet.keys)) * (4 if name == "p2pkh" else 1)
        assert built.choice.fee <= (virtual_bytes + slack) * fee_rate / 1000 + 1


@pytest.mark.parametrize("name", WALLETS)
def test_change_returns_to_the_wallet(name: str) -> None:
    """On the internal chain at the first input's index; where the descriptor has none, to the first input itself."""
    held = funds(WALLETS[name], [50_000, 60_000], first_index=3)
    built = made(WALLETS[name], held.unspent, 80_000)
    first = built.choice.inputs[0]
    psbt = PSBT.from_string(built.text)
    (change,) = [one for one in psbt.outputs if one.script_pubkey.data.hex() != DESTINATION]
    wallet = Descriptor.from_string(WALLETS[name])
    if wallet.num_branches > 1:
        assert change.script_pubkey == wallet.derive(first.index, branch_index=1).script_pubkey()
        assert wallet.owns(change)
    else:
        assert change.script_pubkey.data.hex() == first.script
    assert change.value == built.choice.change > 0


@pytest.mark.parametrize("name", WALLETS)
def test_every_input_says_how_to_sign_it(name: str) -> None:
    held = funds(WALLETS[name], [50_000, 60_000])
    psbt = PSBT.from_string(made(WALLETS[name], held.unspent, 80_000).text)
    assert psbt.tx.version == 2
    assert {one.sequence for one in psbt.tx.vin} == {REPLACEABLE}
    wallet = Descriptor.from_string(WALLETS[name])
    for scope in psbt.inputs:
        paths: list[Any] = list(scope.bip32_derivations.values())
        paths += [path for _, path in scope.taproot_bip32_derivations.values()]
        assert len(paths) == len(list(wallet.keys))
        if name != "p2pkh":
            assert wallet.owns(scope)
            assert scope.witness_utxo.value in (50_000, 60_000)
        if "origin" not in name:
            assert {path.fingerprint for path in paths} <= {root.my_fingerprint for root in ROOTS}


def test_the_same_question_has_the_same_answer() -> None:
    held = funds(WALLETS["p2wpkh"], [50_000, 60_000, 70_000])
    one = made(WALLETS["p2wpkh"], held.unspent, 150_000)
    assert made(WALLETS["p2wpkh"], held.unspent[::-1], 150_000) == one


def test_inputs_and_outputs_are_in_the_order_of_bip_69() -> None:
    held = funds(WALLETS["p2wpkh"], [30_000] * 6)
    for amount in (20_000, 100_000, 150_000):
        transaction = PSBT.from_string(made(WALLETS["p2wpkh"], held.unspent, amount).text).tx
        inputs = [(one.txid.hex(), one.vout) for one in transaction.vin]
        outputs = [(one.value, one.script_pubkey.data) for one in transaction.vout]
        assert inputs == sorted(inputs)
        assert outputs == sorted(outputs)


def test_another_wallets_output_is_refused() -> None:
    held = funds(WALLETS["p2wpkh"], [50_000])
    payment = Payment("bitcoin", DESTINATION, 10_000, 1_000)
    with pytest.raises(InvalidInput, match="not of the wallet's key 0"):
        build(WALLETS["no origin, one branch"].replace("wpkh", "pkh"), held.unspent, payment)


def test_less_than_nodes_relay_is_not_sent() -> None:
    held = funds(WALLETS["p2wpkh"], [50_000])
    for family, least in (("bitcoin", 294), ("litecoin", 2_940)):
        short = build(WALLETS["p2wpkh"], held.unspent, Payment(family, DESTINATION, least - 1, 1_000))
        assert isinstance(short, Shortage)
        assert str(least) in short.reason
        assert isinstance(
            build(WALLETS["p2wpkh"], held.unspent, Payment(family, DESTINATION, least, 1_000)), Built
        )


@pytest.mark.parametrize("name", WALLETS)
def test_it_holds_nothing_private(name: str) -> None:
    held = funds(WALLETS[name], [50_000, 60_000])
    content = b64decode(made(WALLETS[name], held.unspent, 80_000).text)
    wallet = Descriptor.from_string(WALLETS[name])
    for root in ROOTS:
        for key in wallet.keys:
            account = root.derive(key.origin.derivation) if key.origin else root.derive("m/84h/0h/0h")
            for secret in (root, account, account.derive([0, 0]), account.derive([0, 7])):
                assert secret.key.secret not in content
                assert secret.chain_code not in content

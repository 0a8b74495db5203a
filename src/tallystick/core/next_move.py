"""Who has the next move with an invoice now, and what it is.

For: the answers of the API, events, and the command line. Holds true: it begins with what the status says
(`MEANINGS`), and takes back what was done already, so that nobody is sent to decide what was decided or to deliver what
was delivered.
Must not: know rows or the clock. What a person has decided about a case without moving anything (`ignore`) is not known
here: the status then still says what could be done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tallystick.core.assess import Assessment
from tallystick.core.cases import CaseKind, wanted_cases
from tallystick.core.invoice import Facts, InvoiceTerms, PaymentStatus, Status
from tallystick.core.refund import PENDING
from tallystick.core.transitions import MEANINGS, Owner


@dataclass(frozen=True, slots=True)
class NextMove:
    """Who, what in a word, and what in a sentence."""

    owner: Owner
    action: str
    text: str


NOTHING: Final = NextMove(Owner.NONE, "none", "Nothing to do.")
_EXCESS: Final = NextMove(Owner.SUPPORT, "resolve", "Decide on the excess.")
_REFUND: Final = NextMove(Owner.MERCHANT, "refund", "A refund is under way: see there for its next step.")
_WAIT: Final = NextMove(Owner.NETWORK, "wait", "Wait for the confirmations.")


def by_status(status: Status) -> NextMove:
    """What the status alone says."""
    meaning = MEANINGS[status]
    return NextMove(meaning.owner, meaning.action, meaning.action_text)


def next_move(terms: InvoiceTerms, facts: Facts, judged: Assessment) -> NextMove:
    """The next move with an invoice of which `judged` is true."""
    status = judged.status
    if status in (Status.PAID, Status.OVERPAID):
        excess = any(case.kind is CaseKind.OVERPAID for case in wanted_cases(terms, facts, judged))
        if facts.decisions.fulfilled_at is not None:
            return _EXCESS if excess else NOTHING
        return by_status(status if excess else Status.PAID)
    if status not in (Status.UNDERPAID, Status.LATE_PAID):
        return by_status(status)
    open_kinds = {case.kind for case in wanted_cases(terms, facts, judged)} - {CaseKind.UNSUPPORTED_TOKEN}
    if open_kinds:
        return by_status(status)
    if any(refund.status in PENDING for refund in judged.refunds):
        return _REFUND
    if any(verdict.status is PaymentStatus.CONFIRMING for verdict in judged.verdicts):
        return _WAIT
    return NOTHING

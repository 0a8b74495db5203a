"""Who has the next move: what the status says, less what was done already."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tallystick.core.assess import assess
from tallystick.core.invoice import Decision, DecisionKind, Decisions, Facts, InvoiceTerms, LatePayment
from tallystick.core.next_move import next_move
from tallystick.core.refund import RefundFact, RefundStatus
from tests.core.samples import NOW, TOKEN, TWO_BLOCKS, anchor, facts, option, terms, transfer, view

ASKED = terms(option())
ACCEPTING = terms(option(), late=LatePayment.ACCEPT)
PAST = (view(scanned=1),)
DELIVERED = Decisions(fulfilled_at=NOW)
DEEP, SHALLOW = anchor(5), anchor(10)


def returning(amount: int, *named: str) -> tuple[RefundFact, ...]:
    status = RefundStatus.AWAITING_SIGNATURE
    return (RefundFact("rfd_1", status, TOKEN, amount, TWO_BLOCKS, frozenset(named), withdraws=bool(named)),)


def written_off(*named: str) -> Decisions:
    return Decisions(recorded=(Decision(1, DecisionKind.WRITE_OFF, frozenset(named)),))


@dataclass(frozen=True, slots=True)
class Row:
    """A story, its facts, and who does what next."""

    story: str
    asked: InvoiceTerms
    known: Facts
    move: str
    refunds: tuple[RefundFact, ...] = ()


ROWS = [
    Row("nothing yet", ASKED, facts(), "customer pay"),
    Row("paid", ASKED, facts(transfer(100, DEEP)), "merchant fulfill"),
    Row("paid and delivered", ASKED, facts(transfer(100, DEEP), decided=DELIVERED), "none none"),
    Row("too much", ASKED, facts(transfer(150, DEEP)), "merchant fulfill"),
    Row("too much, delivered", ASKED, facts(transfer(150, DEEP), decided=DELIVERED), "support resolve"),
    Row(
        "too much, delivered, the excess on its way back",
        ASKED,
        facts(transfer(150, DEEP), decided=DELIVERED),
        "none none",
        returning(50),
    ),
    Row("a part", ASKED, facts(transfer(40, DEEP), views=PAST), "support resolve"),
    Row(
        "a part, on its way back",
        ASKED,
        facts(transfer(40, DEEP), views=PAST),
        "merchant refund",
        returning(40, "trf_1"),
    ),
    Row(
        "a part, written off",
        ASKED,
        facts(transfer(40, DEEP), views=PAST, decided=written_off("trf_1")),
        "none none",
    ),
    Row("late", ASKED, facts(transfer(100, DEEP, seconds=60), views=PAST), "support resolve"),
    Row(
        "late, will be accepted by rule",
        ACCEPTING,
        facts(transfer(100, SHALLOW, seconds=60), views=PAST),
        "network wait",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.story)
def test_the_next_move(row: Row) -> None:
    """Planted bugs seen to fail: fulfilment not asked about; the refund's question before the open cases'."""
    known = Facts(row.known.transfers, row.known.decisions, row.known.networks, row.refunds)
    move = next_move(row.asked, known, assess(row.asked, known, NOW))
    assert f"{move.owner} {move.action}" == row.move
    assert move.text.endswith(".")

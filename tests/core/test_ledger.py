"""A ledger of every way a payment can end: terms, facts, status, next move, cases, and what the books say.

Each row is judged with its facts in both orders and told twice; status and books have to be the same. Amounts are in
base units (`USDT 100` is what 100.00 USD asks; `USD 10000` are cents), debits `+`, credits `-`.

Planted bugs seen to fail: `merchant` for everything that came with a paid invoice, counting or not; the excess taken
from what arrived first; a refund owed whatever stands; `late_too` always true in `_Case.of`; what a person accepted
counted as more than the price; the `REFUNDED` exemption left out of `_lost_after_delivery`; balance check removed from
`Entry`.
"""
# ruff: noqa: E501  (a row is read as a row)

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.assess import assess
from tallystick.core.books import Books, books
from tallystick.core.cases import DERIVED, CaseKind, wanted_cases
from tallystick.core.chain import Anchor, Channel, Finality, Requirement
from tallystick.core.errors import Unbalanced
from tallystick.core.invoice import (
    Decision,
    DecisionKind,
    Decisions,
    Facts,
    InvoiceTerms,
    LatePayment,
    Match,
    PaymentStatus,
    Status,
    Tolerance,
    TransferFact,
)
from tallystick.core.ledger import (
    ACCOUNTS,
    POSITIONS,
    SPECIAL,
    Account,
    Denomination,
    Entry,
    EntryKind,
    Lines,
    Posting,
    Special,
    balances,
)
from tallystick.core.money import AMOUNT_MAX, Asset
from tallystick.core.refund import RefundFact, RefundStatus
from tallystick.core.transitions import MEANINGS
from tests.core.samples import (
    BETA_TOKEN,
    COIN,
    NOW,
    OTHER_TOKEN,
    TOKEN,
    TWO_BLOCKS,
    anchor,
    option,
    terms,
    transfer,
    view,
)

S, K, D, R = Status, CaseKind, DecisionKind, RefundStatus
TIP = 10
DEEP, SHALLOW, GONE = anchor(5), anchor(TIP), anchor(5, best=False)
LATE = anchor(5, seconds=60)
ASKED = terms(option())  # 100 USDT for 100.00 USD, two blocks, -0.5 % to +10 %
FINE = terms(option(amount=1000))  # 1000 USDT for the same
ACCEPTING = terms(option(), late=LatePayment.ACCEPT)
REFUNDING = terms(option(), late=LatePayment.REFUND)
TWO_WAYS = terms(option(), option(COIN, 1000, id="opt_2"))  # 1000 base units of ETH ask for the same
STRICT = Tolerance(0, 0)


# How a row is written ------------------------------------------------------------------------------------------------


def paid(
    amount: int, *anchors: Anchor, id: str = "a", seconds: int = -60, asset: Asset = TOKEN, to: str = "opt_1"
) -> TransferFact:
    """A transfer deep in the best chain unless anchors say otherwise."""
    return transfer(
        amount,
        *(anchors or (DEEP,)),
        id=id,
        asset=asset,
        network=asset.network,
        option_id=to,
        seconds=seconds,
    )


def late(amount: int, id: str = "l") -> TransferFact:
    return paid(amount, LATE, id=id, seconds=60)


def decided(*words: str, fulfilled: bool = False, settled: bool = False, canceled: bool = False) -> Decisions:
    """Decisions in order, each as `kind transfer,transfer value`."""
    recorded = []
    for number, word in enumerate(words, start=1):
        kind, named, value, *_ = [*word.split(), "", ""]
        ids = frozenset(named.split(",")) if named else frozenset[str]()
        recorded.append(Decision(number, DecisionKind(kind), ids, int(value) if value else None))
    return Decisions(
        NOW if canceled else None, NOW if fulfilled else None, NOW if settled else None, tuple(recorded)
    )


def refund(
    amount: int,
    status: RefundStatus = R.APPROVED,
    *anchors: Anchor,
    of: str = "",
    fee: int = 0,
    withdraws: bool = False,
    id: str = "r",
    asset: Asset = TOKEN,
) -> RefundFact:
    """A refund; with anchors its outgoing transfer stands (or stood) in blocks."""
    return RefundFact(
        id=id,
        status=status,
        asset=asset,
        amount=amount,
        requirement=TWO_BLOCKS,
        transfer_ids=frozenset(of.split(",")) if of else frozenset(),
        withdraws=withdraws,
        anchors=anchors,
        fee_amount=fee,
    )


def known(*found: TransferFact | RefundFact, by: Decisions | None = None, past: bool = False) -> Facts:
    """Facts as they came, with alpha scanned past the deadline or not; beta follows alpha."""
    scanned = 1 if past else -30
    return Facts(
        tuple(one for one in found if isinstance(one, TransferFact)),
        by or Decisions(),
        {name: view(TIP, scanned=scanned, network=name) for name in ("alpha", "beta")},
        tuple(one for one in found if isinstance(one, RefundFact)),
    )


@dataclass(frozen=True, slots=True)
class Row:
    story: str
    asked: InvoiceTerms
    known: Facts
    status: Status
    next: str  # owner and action
    cases: str  # kind:transfers …
    entries: tuple[str, ...]


def written(found: Books) -> tuple[str, ...]:
    """Entries as rows write them: what it stands for, then its postings."""
    lines = [f"{one}: {_line(entry)}" for one, entry in sorted(found.receipts.items())]
    lines += [f"position: {_line(found.position)}"] if found.position is not None else []
    return tuple(lines + [f"{one} sent: {_line(entry)}" for one, entry in sorted(found.refunds.items())])


def _line(entry: Entry) -> str:
    return ", ".join(f"{one.account} {one.denomination.symbol} {one.amount:+}" for one in entry.postings)


def got(amount: int, id: str = "a", symbol: str = "USDT") -> str:
    """The receipt of a confirmed payment: the same line in every row."""
    return f"{id}: onchain {symbol} {amount:+}, suspense {symbol} {-amount:+}"


NEW, QUOTED = terms(), terms(option(active=False))
OWED_ALL = "position: receivable USD +10000, expected USD -10000"
EARNED = "position: merchant USDT -100, suspense USDT +100"

ROWS = [
    # story | asked | known | status | next | cases | entries
    Row("nothing yet", NEW, known(), S.CREATED, "system quote", "", ()),
    Row("quoted", QUOTED, known(), S.QUOTED, "customer choose", "", ()),
    Row("address issued", ASKED, known(), S.AWAITING_PAYMENT, "customer pay", "", ()),
    Row("seen outside any block", ASKED, known(transfer(100, id="a", in_mempool=True)), S.DETECTED, "network wait", "", ()),
    Row("in a block", ASKED, known(paid(100, SHALLOW)), S.CONFIRMING, "network wait", "", ()),
    Row("a part", ASKED, known(paid(60)), S.PARTIALLY_PAID, "customer top_up", "", (got(60), "position: receivable USD +4000, expected USD -4000")),
    Row("a part, the rest in a block", ASKED, known(paid(60), paid(40, SHALLOW, id="b")), S.CONFIRMING, "network wait", "", (got(60),)),
    # paid
    Row("paid", ASKED, known(paid(100)), S.PAID, "merchant fulfill", "", (got(100), EARNED)),
    Row("paid in two parts", ASKED, known(paid(60), paid(40, id="b")), S.PAID, "merchant fulfill", "", (got(60), got(40, "b"), EARNED)),
    Row("a little less, within the tolerance", FINE, known(paid(996)), S.PAID, "merchant fulfill", "", (got(996), "position: expected USD -40, losses USD +40, merchant USDT -996, suspense USDT +996")),
    Row("a little more, within the tolerance", ASKED, known(paid(105)), S.PAID, "merchant fulfill", "", (got(105), "position: merchant USDT -105, suspense USDT +105")),
    Row("counted when seen", terms(option(requirement=Requirement(Finality.DEPTH, 1, zero_conf=True))), known(transfer(100, id="a", in_mempool=True)), S.PAID, "merchant fulfill", "", (got(100), EARNED)),
    Row("paid in two assets", TWO_WAYS, known(paid(50), paid(500, id="b", asset=COIN, to="opt_2")), S.PAID, "merchant fulfill", "", (got(50), got(500, "b", "ETH"), "position: merchant USDT -50, suspense USDT +50, merchant ETH -500, suspense ETH +500")),
    Row("paid, and junk", ASKED, known(paid(100), transfer(7, DEEP, id="j", asset=None)), S.PAID, "merchant fulfill", "unsupported_token:j", (got(100), EARNED)),
    Row("paid, and coins moved among one's own", ASKED, known(paid(100), replace(paid(50, id="own"), internal=True)), S.PAID, "merchant fulfill", "", (got(100), EARNED)),
    Row("paid, and another asset too", ASKED, known(paid(100), paid(30, id="w", asset=OTHER_TOKEN)), S.PAID, "merchant fulfill", "wrong_asset:w", (got(100), got(30, "w", "USDC"), EARNED)),
    Row("the other asset is kept", ASKED, known(paid(100), paid(30, id="w", asset=OTHER_TOKEN), by=decided("write_off w")), S.PAID, "merchant fulfill", "", (got(100), got(30, "w", "USDC"), f"{EARNED}, merchant USDC -30, suspense USDC +30")),
    Row("paid, and a little more late", ASKED, known(paid(100), late(10), past=True), S.PAID, "merchant fulfill", "late:l", (got(100), got(10, "l"), EARNED)),
    Row("the late money is kept", ASKED, known(paid(100), late(10), by=decided("write_off l"), past=True), S.PAID, "merchant fulfill", "", (got(100), got(10, "l"), "position: merchant USDT -110, suspense USDT +110")),
    # overpaid
    Row("half as much again", ASKED, known(paid(150)), S.OVERPAID, "merchant fulfill", "overpaid:a", (got(150), "position: merchant USDT -100, overpayment USDT -50, suspense USDT +150")),
    Row("paid twice", ASKED, known(paid(100), paid(100, id="b", seconds=-30)), S.OVERPAID, "merchant fulfill", "overpaid:a,b", (got(100), got(100, "b"), "position: merchant USDT -100, overpayment USDT -100, suspense USDT +200")),
    Row("paid again, late", ASKED, known(paid(100), late(100), past=True), S.OVERPAID, "merchant fulfill", "overpaid:a,l", (got(100), got(100, "l"), "position: merchant USDT -100, overpayment USDT -100, suspense USDT +200")),
    Row("paid again in another asset: the excess is what came last", TWO_WAYS, known(paid(100), paid(600, id="b", asset=COIN, to="opt_2", seconds=-30)), S.OVERPAID, "merchant fulfill", "overpaid:a,b", (got(100), got(600, "b", "ETH"), f"{EARNED}, overpayment ETH -600, suspense ETH +600")),
    Row("the same, the other way round", TWO_WAYS, known(paid(100, seconds=-30), paid(600, id="b", asset=COIN, to="opt_2")), S.OVERPAID, "merchant fulfill", "overpaid:a,b", (got(100), got(600, "b", "ETH"), "position: merchant USDT -40, overpayment USDT -60, suspense USDT +100, merchant ETH -600, suspense ETH +600")),
    Row("a third of a unit is not owed", terms(option(amount=3), option(COIN, 10**14, id="opt_2", tolerance=STRICT)), known(paid(10, id="b", seconds=-30), paid(10**14 // 3, asset=COIN, to="opt_2", seconds=-60)), S.OVERPAID, "merchant fulfill", "overpaid:a,b", (got(10**14 // 3, "a", "ETH"), got(10, "b"), "position: merchant USDT -3, overpayment USDT -7, suspense USDT +10, merchant ETH -33333333333333, suspense ETH +33333333333333")),
    Row("the customer lets it be", ASKED, known(paid(150), by=decided("keep a")), S.PAID, "merchant fulfill", "", (got(150), "position: merchant USDT -150, suspense USDT +150")),
    Row("more comes after that", ASKED, known(paid(150), paid(50, id="b", seconds=-30), by=decided("keep a")), S.OVERPAID, "merchant fulfill", "overpaid:a,b", (got(150), got(50, "b"), "position: merchant USDT -100, overpayment USDT -100, suspense USDT +200")),
    # too little
    Row("nothing, and the window closed", ASKED, known(past=True), S.EXPIRED, "none none", "", ()),
    Row("junk only", ASKED, known(transfer(7, DEEP, id="j", asset=None), past=True), S.EXPIRED, "none none", "unsupported_token:j", ()),
    Row("dust only", ASKED, known(transfer(9, DEEP, id="d", asset=COIN), past=True), S.EXPIRED, "none none", "", (got(9, "d", "ETH"),)),
    Row("too little", ASKED, known(paid(60), past=True), S.UNDERPAID, "support resolve", "underpaid:a", (got(60), "position: receivable USD +4000, expected USD -4000")),
    Row("accepted as it is", ASKED, known(paid(60), by=decided("accept a"), past=True), S.PAID, "merchant fulfill", "", (got(60), "position: expected USD -4000, losses USD +4000, merchant USDT -60, suspense USDT +60")),
    Row("credited at what it is worth to us", ASKED, known(paid(60), by=decided("credit a 9970"), past=True), S.PAID, "merchant fulfill", "", (got(60), "position: expected USD -30, losses USD +30, merchant USDT -60, suspense USDT +60")),
    Row("kept without delivering", ASKED, known(paid(60), by=decided("write_off a"), past=True), S.UNDERPAID, "support resolve", "", (got(60), "position: merchant USDT -60, suspense USDT +60")),
    Row("ignored", ASKED, known(paid(60), by=decided("dismiss a"), past=True), S.UNDERPAID, "support resolve", "", (got(60),)),
    # late
    Row("late", ASKED, known(late(100), past=True), S.LATE_PAID, "support resolve", "late:l", (got(100, "l"),)),
    Row("late, and the merchant accepts", ACCEPTING, known(late(100), past=True), S.PAID, "merchant fulfill", "", (got(100, "l"), EARNED)),
    Row("late, and a person accepts", ASKED, known(late(100), by=decided("accept l"), past=True), S.PAID, "merchant fulfill", "", (got(100, "l"), EARNED)),
    Row("late, to be given back by rule", REFUNDING, known(late(100), past=True), S.LATE_PAID, "support resolve", "", (got(100, "l"),)),
    Row("late, and kept", ASKED, known(late(100), by=decided("write_off l"), past=True), S.LATE_PAID, "support resolve", "", (got(100, "l"), "position: merchant USDT -100, suspense USDT +100")),
    Row("a part in time, a part late", ASKED, known(paid(60), late(20), past=True), S.UNDERPAID, "support resolve", "underpaid:a late:l", (got(60), got(20, "l"), "position: receivable USD +2000, expected USD -2000")),
    Row("attached from an older invoice", ASKED, known(late(100), by=decided("receive l"), past=True), S.PAID, "merchant fulfill", "", (got(100, "l"), EARNED)),
    # canceled
    Row("withdrawn", ASKED, known(by=decided(canceled=True)), S.CANCELED, "none none", "", ()),
    Row("withdrawn, and paid", ASKED, known(paid(100), by=decided(canceled=True)), S.LATE_PAID, "support resolve", "late:a", (got(100),)),
    # what nobody asked for
    Row("another asset", ASKED, known(paid(70, id="w", asset=OTHER_TOKEN)), S.REVIEW_REQUIRED, "support resolve", "wrong_asset:w", (got(70, "w", "USDC"),)),
    Row("another asset, not final", ASKED, known(paid(70, SHALLOW, id="w", asset=OTHER_TOKEN)), S.REVIEW_REQUIRED, "support resolve", "wrong_asset:w", ()),
    Row("another network", ASKED, known(paid(10**15, id="w", asset=BETA_TOKEN)), S.REVIEW_REQUIRED, "support resolve", "wrong_network:w", (got(10**15, "w"),)),
    Row("coins that no transfer explains", terms(option(COIN, 10**15)), known(replace(paid(10**15, id="w", asset=COIN), key=replace(paid(1, id="w").key, channel=Channel.BALANCE))), S.REVIEW_REQUIRED, "support resolve", "unattributed_value:w", (got(10**15, "w", "ETH"),)),
    Row("accepted as the payment", ASKED, known(paid(70, id="w", asset=OTHER_TOKEN), by=decided("accept w")), S.PAID, "merchant fulfill", "", (got(70, "w", "USDC"), "position: merchant USDC -70, suspense USDC +70")),
    Row("credited at half, and the other half came", ASKED, known(paid(70, id="w", asset=OTHER_TOKEN), paid(50), by=decided("credit w 5000")), S.PAID, "merchant fulfill", "", (got(50), got(70, "w", "USDC"), "position: merchant USDT -50, suspense USDT +50, merchant USDC -70, suspense USDC +70")),
    Row("credited too high: the excess is the part not needed", ASKED, known(paid(100), paid(70, id="w", asset=OTHER_TOKEN, seconds=-30), by=decided("credit w 5000")), S.OVERPAID, "merchant fulfill", "overpaid:a", (got(100), got(70, "w", "USDC"), f"{EARNED}, overpayment USDC -70, suspense USDC +70")),
    Row("accepted, and paid as well: what was accepted is not more than the price", ASKED, known(paid(300), paid(100, id="b", seconds=-30), by=decided("accept a")), S.OVERPAID, "merchant fulfill", "overpaid:a,b", (got(300), got(100, "b"), "position: merchant USDT -300, overpayment USDT -100, suspense USDT +400")),
    Row("the mismatch is ignored", ASKED, known(paid(70, id="w", asset=OTHER_TOKEN), by=decided("dismiss w")), S.AWAITING_PAYMENT, "customer pay", "", (got(70, "w", "USDC"),)),
    # the chain changes its mind
    Row("gone", ASKED, known(paid(100, GONE)), S.AWAITING_PAYMENT, "customer pay", "", ()),
    Row("gone, and mined again", ASKED, known(paid(100, GONE, anchor(9, name="0x9b"))), S.PAID, "merchant fulfill", "", (got(100), EARNED)),
    Row("gone after delivery", ASKED, known(paid(100, GONE), by=decided(fulfilled=True)), S.REVIEW_REQUIRED, "support resolve", "", (OWED_ALL,)),
    Row("a part gone after delivery", ASKED, known(paid(60), paid(40, GONE, id="b"), by=decided(fulfilled=True)), S.REVIEW_REQUIRED, "support resolve", "", (got(60), "position: receivable USD +4000, expected USD -4000")),
    Row("gone after delivery, written off", ASKED, known(paid(100, GONE), by=decided("write_off a", fulfilled=True), past=True), S.EXPIRED, "none none", "", ("position: expected USD -10000, losses USD +10000",)),
    Row("gone after delivery, ignored", ASKED, known(paid(100, GONE), by=decided("dismiss a", fulfilled=True), past=True), S.EXPIRED, "none none", "", (OWED_ALL,)),
    Row("gone after delivery, paid again", ASKED, known(paid(100, GONE), paid(100, id="b"), by=decided(fulfilled=True)), S.PAID, "merchant fulfill", "", (got(100, "b"), EARNED)),
    Row("gone after settlement", ASKED, known(paid(100, GONE), by=decided(settled=True)), S.REVIEW_REQUIRED, "support resolve", "", ()),
    # settled and disputed
    Row("settled", ASKED, known(paid(100), by=decided(settled=True)), S.SETTLED, "finance none", "", (got(100), EARNED)),
    Row("settled, and overpaid", ASKED, known(paid(150), by=decided(settled=True)), S.SETTLED, "finance none", "overpaid:a", (got(150), "position: merchant USDT -100, overpayment USDT -50, suspense USDT +150")),
    Row("disputed", ASKED, known(paid(100), by=decided("open_dispute", fulfilled=True)), S.DISPUTED, "support resolve", "", (got(100),)),
    Row("settled between them", ASKED, known(paid(100), by=decided("open_dispute", "resolve_dispute")), S.PAID, "merchant fulfill", "", (got(100), EARNED)),
    # given back
    Row("a refund is asked for", ASKED, known(paid(100), refund(100, R.REQUESTED, of="a")), S.PAID, "merchant fulfill", "", (got(100), EARNED)),
    Row("approved", ASKED, known(paid(100), refund(100, of="a")), S.PAID, "merchant fulfill", "", (got(100), "position: refunds_payable USDT -100, suspense USDT +100")),
    Row("approved, what came too late", ASKED, known(late(100), refund(100, of="l", withdraws=True), past=True), S.LATE_PAID, "support resolve", "", (got(100, "l"), "position: refunds_payable USDT -100, suspense USDT +100")),
    Row("approved, what was too little", ASKED, known(paid(60), refund(60, of="a", withdraws=True), past=True), S.UNDERPAID, "support resolve", "", (got(60), "position: refunds_payable USDT -60, suspense USDT +60")),
    Row("refused", ASKED, known(paid(100), refund(100, R.REJECTED, of="a")), S.PAID, "merchant fulfill", "", (got(100), EARNED)),
    Row("sent, not final", ASKED, known(paid(100), refund(100, R.BROADCAST, SHALLOW, of="a")), S.PAID, "merchant fulfill", "", (got(100), "position: refunds_payable USDT -100, suspense USDT +100")),
    Row("given back", ASKED, known(paid(100), refund(100, R.BROADCAST, DEEP, of="a")), S.REFUNDED, "none none", "", (got(100), "position: refunds_payable USDT -100, suspense USDT +100", "r sent: onchain USDT -100, refunds_payable USDT +100")),
    Row("given back after delivery", ASKED, known(paid(100), refund(100, R.BROADCAST, DEEP, of="a"), by=decided(fulfilled=True)), S.REFUNDED, "none none", "", (got(100), "position: refunds_payable USDT -100, suspense USDT +100", "r sent: onchain USDT -100, refunds_payable USDT +100")),
    Row("a part gone after delivery, the rest given back", ASKED, known(paid(60), paid(40, GONE, id="b"), refund(60, R.BROADCAST, DEEP, of="a"), by=decided(fulfilled=True)), S.REFUNDED, "none none", "", (got(60), "position: refunds_payable USDT -60, suspense USDT +60", "r sent: onchain USDT -60, refunds_payable USDT +60")),
    Row("the customer bears the fee", ASKED, known(paid(100), refund(100, R.BROADCAST, DEEP, of="a", fee=3)), S.REFUNDED, "none none", "", (got(100), "position: refunds_payable USDT -100, suspense USDT +100", "r sent: onchain USDT -97, refunds_payable USDT +100, fees USDT -3")),
    Row("the excess is given back", ASKED, known(paid(150), refund(50, R.BROADCAST, DEEP)), S.OVERPAID, "merchant fulfill", "", (got(150), "position: merchant USDT -100, refunds_payable USDT -50, suspense USDT +150", "r sent: onchain USDT -50, refunds_payable USDT +50")),
    Row("a part of a paid order is given back", ASKED, known(paid(100), refund(30, R.BROADCAST, DEEP)), S.PAID, "merchant fulfill", "", (got(100), "position: merchant USDT -70, refunds_payable USDT -30, suspense USDT +100", "r sent: onchain USDT -30, refunds_payable USDT +30")),
    Row("more than the excess is given back", ASKED, known(paid(150), refund(70)), S.OVERPAID, "merchant fulfill", "", (got(150), "position: merchant USDT -80, refunds_payable USDT -70, suspense USDT +150")),
    Row("another asset is given back", ASKED, known(paid(100), paid(30, id="w", asset=OTHER_TOKEN), refund(30, R.BROADCAST, DEEP, of="w", asset=OTHER_TOKEN)), S.PAID, "merchant fulfill", "", (got(100), got(30, "w", "USDC"), f"{EARNED}, refunds_payable USDC -30, suspense USDC +30", "r sent: onchain USDC -30, refunds_payable USDC +30")),
    Row("the refund's block is gone", ASKED, known(paid(100), refund(100, R.COMPLETED, GONE, of="a")), S.PAID, "merchant fulfill", "", (got(100), "position: refunds_payable USDT -100, suspense USDT +100")),
    Row("the payment is gone, the refund was not sent", ASKED, known(paid(100, GONE), refund(100, of="a")), S.AWAITING_PAYMENT, "customer pay", "", ()),
    Row("the payment is gone, the refund was sent", ASKED, known(paid(100, GONE), refund(100, R.BROADCAST, DEEP, of="a")), S.REVIEW_REQUIRED, "support resolve", "", ("position: refunds_payable USDT -100, losses USDT +100", "r sent: onchain USDT -100, refunds_payable USDT +100")),
    Row("written off", ASKED, known(paid(100, GONE), refund(100, R.BROADCAST, DEEP, of="a"), by=decided("write_off a"), past=True), S.EXPIRED, "none none", "", ("position: refunds_payable USDT -100, losses USDT +100", "r sent: onchain USDT -100, refunds_payable USDT +100")),
    Row("a part of it is gone", ASKED, known(paid(60), paid(40, GONE, id="b"), refund(100, R.BROADCAST, DEEP, of="a,b")), S.REVIEW_REQUIRED, "support resolve", "", (got(60), "position: refunds_payable USDT -100, suspense USDT +60, losses USDT +40", "r sent: onchain USDT -100, refunds_payable USDT +100")),
    Row("sent twice", ASKED, known(paid(100), refund(100, R.BROADCAST, DEEP, anchor(6), of="a")), S.REFUNDED, "none none", "", (got(100), "position: refunds_payable USDT -100, suspense USDT +100", "r sent: onchain USDT -200, refunds_payable USDT +100, losses USDT +100")),
    Row("going back, and paid again: nothing is too much", ASKED, known(paid(100), paid(100, id="b", seconds=-30), refund(100, of="a")), S.OVERPAID, "merchant fulfill", "", (got(100), got(100, "b"), "position: merchant USDT -100, refunds_payable USDT -100, suspense USDT +200")),
    Row("the same, asked for as an amount", ASKED, known(paid(100), paid(100, id="b", seconds=-30), refund(100)), S.OVERPAID, "merchant fulfill", "", (got(100), got(100, "b"), "position: merchant USDT -100, refunds_payable USDT -100, suspense USDT +200")),
    Row("going back, and paid twice again", ASKED, known(paid(100), paid(100, id="b", seconds=-30), paid(100, id="c", seconds=-20), refund(100, of="a")), S.OVERPAID, "merchant fulfill", "overpaid:a,b,c", (got(100), got(100, "b"), got(100, "c"), "position: merchant USDT -100, overpayment USDT -100, refunds_payable USDT -100, suspense USDT +300")),
    Row("given back, and paid again", ASKED, known(paid(100), paid(100, id="b"), refund(100, R.BROADCAST, DEEP, of="a")), S.PAID, "merchant fulfill", "", (got(100), got(100, "b"), "position: merchant USDT -100, refunds_payable USDT -100, suspense USDT +200", "r sent: onchain USDT -100, refunds_payable USDT +100")),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.story)
def test_every_ending(row: Row) -> None:
    for told in (row.known, backwards(row.known)):
        judged = assess(row.asked, told, NOW)
        meaning = MEANINGS[judged.status]
        cases = wanted_cases(row.asked, told, judged)
        assert judged.status is row.status
        assert f"{meaning.owner} {meaning.action}" == row.next
        assert " ".join(f"{case.kind}:{','.join(sorted(case.transfer_ids))}" for case in cases) == row.cases
        assert written(books(row.asked, told, judged)) == row.entries


def backwards(told: Facts) -> Facts:
    """The same facts in the other order, transfers told twice."""
    return replace(
        told,
        transfers=(*reversed(told.transfers), *told.transfers),
        refunds=told.refunds[::-1],
        decisions=replace(told.decisions, recorded=told.decisions.recorded[::-1]),
    )


def test_the_rows_cover_every_status_and_every_derived_case() -> None:
    assert {row.status for row in ROWS} == set(Status)
    assert {case.split(":")[0] for row in ROWS for case in row.cases.split()} == set(DERIVED)


def test_every_account_status_and_special_rule_is_explained() -> None:
    assert set(ACCOUNTS) == set(Account)
    assert set(POSITIONS) == set(Status)
    assert set(SPECIAL) == set(Special)


# An entry ------------------------------------------------------------------------------------------------------------

USDT = Denomination.of_asset(TOKEN)
USD = Denomination("", "", "USD", 2)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (Posting(Account.ONCHAIN, USDT, 5),),
        (Posting(Account.ONCHAIN, USDT, 5), Posting(Account.SUSPENSE, USDT, -4)),
        (Posting(Account.ONCHAIN, USDT, 5), Posting(Account.SUSPENSE, USD, -5)),
        (Posting(Account.ONCHAIN, USDT, 0), Posting(Account.SUSPENSE, USDT, 0)),
        (Posting(Account.ONCHAIN, USDT, AMOUNT_MAX + 1), Posting(Account.SUSPENSE, USDT, -AMOUNT_MAX - 1)),
    ],
    ids=["nothing", "one line", "unequal", "two denominations", "empty lines", "too large to write"],
)
def test_what_does_not_balance_is_no_entry(lines: tuple[Posting, ...]) -> None:
    with pytest.raises(Unbalanced):
        Entry(EntryKind.RECEIPT, lines)


def test_a_sum_too_large_for_a_line_is_written_in_several() -> None:
    lines = Lines()
    lines.move(USDT, Account.ONCHAIN, Account.SUSPENSE, 2 * AMOUNT_MAX + 7)
    entry = lines.entry(EntryKind.POSITION, "")
    assert entry is not None
    assert sorted(one.amount for one in entry.postings if one.amount > 0) == [7, AMOUNT_MAX, AMOUNT_MAX]
    assert balances([entry]) == {
        (USDT, Account.ONCHAIN): 2 * AMOUNT_MAX + 7,
        (USDT, Account.SUSPENSE): -2 * AMOUNT_MAX - 7,
    }


def test_an_entry_and_its_opposite_leave_nothing() -> None:
    lines = Lines()
    lines.move(USDT, Account.ONCHAIN, Account.SUSPENSE, 5)
    lines.move(USD, Account.RECEIVABLE, Account.EXPECTED, 7)
    entry = lines.entry(EntryKind.POSITION, "because")
    assert entry is not None
    assert balances([entry, entry.opposite("not any more")]) == {}
    assert entry.opposite("not any more").opposite("because") == entry
    assert Lines().entry(EntryKind.POSITION, "") is None


# Any facts at all ----------------------------------------------------------------------------------------------------

ASSETS = [(TOKEN, "opt_1"), (OTHER_TOKEN, "opt_1"), (COIN, "opt_2"), (BETA_TOKEN, "opt_1")]
ANCHORS = [(), (DEEP,), (SHALLOW,), (GONE,), (GONE, anchor(9, name="0x9b"))]


@st.composite
def any_facts(draw: st.DrawFn) -> tuple[InvoiceTerms, Facts]:
    """Anything that can be known about an invoice in two assets, sensible or not."""
    found: list[TransferFact | RefundFact] = []
    for number in range(draw(st.integers(0, 4))):
        asset, to = draw(st.sampled_from(ASSETS))
        fact = transfer(
            draw(st.sampled_from([1, 7, 33, 60, 100, 150, 1000, 10**15, AMOUNT_MAX])),
            *draw(st.sampled_from(ANCHORS)),
            id=f"t{number}",
            asset=draw(st.sampled_from([asset, asset, asset, None])),
            network=asset.network,
            option_id=to,
            seconds=draw(st.sampled_from([-90, -60, -30, 60, 90])),
            in_mempool=draw(st.booleans()),
        )
        found.append(replace(fact, internal=draw(st.sampled_from([False, False, False, True]))))
    ids = [fact.id for fact in found]
    named = st.lists(st.sampled_from(ids), unique=True).map(",".join) if ids else st.just("")
    found += [
        refund(
            draw(st.sampled_from([20, 60, 100, 1000])),
            draw(st.sampled_from(list(RefundStatus))),
            *draw(st.sampled_from(ANCHORS)),
            of=draw(named),
            fee=draw(st.sampled_from([0, 3])),
            withdraws=draw(st.booleans()),
            id=f"r{number}",
            asset=draw(st.sampled_from([TOKEN, OTHER_TOKEN, COIN])),
        )
        for number in range(draw(st.integers(0, 2)))
    ]
    words = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(list(DecisionKind)))
        value = str(draw(st.sampled_from([1, 5000, 30_000]))) if kind is D.CREDIT else ""
        words.append(f"{kind} {draw(named)} {value}")
    by = decided(
        *words, fulfilled=draw(st.booleans()), settled=draw(st.booleans()), canceled=draw(st.booleans())
    )
    rule = draw(st.sampled_from(list(LatePayment)))
    return replace(TWO_WAYS, late_payment=rule), known(*found, by=by, past=draw(st.booleans()))


@given(any_facts(), st.randoms(use_true_random=False))
def test_any_books_balance_keep_every_unit_and_do_not_depend_on_the_order(
    given_facts: tuple[InvoiceTerms, Facts], rng: random.Random
) -> None:
    """Conservation: `onchain` is what is confirmed less what was sent; nothing is owed that nobody has a claim to."""
    asked, told = given_facts
    judged = assess(asked, told, NOW)
    found = books(asked, told, judged)
    sums = balances(found.entries())
    verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    expected: dict[Denomination, int] = {}
    for fact in told.transfers:
        verdict = verdicts[fact.id]
        if verdict.status is PaymentStatus.CONFIRMED and fact.asset is not None and not fact.internal:
            assert verdict.match is not Match.UNSUPPORTED_TOKEN
            key = Denomination.of_asset(fact.asset)
            expected[key] = expected.get(key, 0) + fact.amount
    sent = {verdict.refund_id: verdict for verdict in judged.refunds if verdict.status is R.COMPLETED}
    for back in told.refunds:
        if back.id in sent:
            key = Denomination.of_asset(back.asset)
            times = max(1, sent[back.id].times_sent)
            expected[key] = expected.get(key, 0) - times * (back.amount - back.fee_amount)
    onchain = {key: amount for (key, account), amount in sums.items() if account is Account.ONCHAIN}
    assert onchain == {key: amount for key, amount in expected.items() if amount}
    for denomination in {key for key, _ in sums}:
        assert sum(amount for (key, _), amount in sums.items() if key == denomination) == 0
    for (_, account), amount in sums.items():
        if account in (Account.SUSPENSE, Account.MERCHANT, Account.OVERPAYMENT, Account.REFUNDS_PAYABLE):
            assert amount < 0, account
        if account in (Account.LOSSES, Account.RECEIVABLE):
            assert amount > 0, account
    shuffled = backwards(told)
    order = list(shuffled.transfers)
    rng.shuffle(order)
    again = replace(shuffled, transfers=tuple(order))
    assert books(asked, again, assess(asked, again, NOW)) == found

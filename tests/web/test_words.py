"""The words: one situation each, for every status and every cause; plain, kind, and with a next step."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tallystick.core.cases import CaseKind
from tallystick.core.invoice import LatePayment, PaymentStatus, Status
from tallystick.core.refund import RefundStatus
from tallystick.services import checkout_texts as texts
from tallystick.services import checkout_words as words_of
from tallystick.services.checkout_situations import (
    OF_STATUS,
    Known,
    Moment,
    RefundSeen,
    Situation,
    situation,
)
from tallystick.services.checkout_view import CustomerView, without_clock
from tallystick.services.checkout_words import REFUND_WORDS, WORDS, Phase, Words
from tests.web.samples import NOW, invoice, option, payment, view

S = Situation

# Words of the trade, of our own house, and of blame. A customer knows coins, networks, wallets and confirmations.
FORBIDDEN = frozenset(
    re.findall(
        "[a-z]+",
        """
        mempool block blockchain reorg reorganisation reorganization finality hash node rpc gas nonce wei satoshi utxo
        token contract mined orphaned canonical quote rate spread dust tolerance requirement policy exception case
        operator assessment transition evidence anchor ledger suspense posting webhook status underpaid overpaid
        unattributed mismatch merchant customer invoice batch dispute disputed error invalid illegal failed failure
        fault mistake wrong incorrect unfortunately sorry forgot
        """,
    )
)

FILLING = {
    "merchant": "Kiln & Clay",
    "arrived": "19.6 USDC",
    "missing": "29.4 USDC",
    "coins": "USDC and ETH",
}


def sentences(words: Words) -> tuple[str, str, str]:
    return words.headline, words.text.format(**FILLING), words.next_step.format(**FILLING)


ALL_WORDS = [*WORDS.values(), words_of.NOT_FOUND, words_of.CROSS_SITE, words_of.UNAVAILABLE]


def test_every_situation_has_words_of_its_own() -> None:
    assert set(WORDS) == set(Situation)
    said = [sentences(words) for words in WORDS.values()]
    assert all(all(parts) for parts in said)
    # Complete is complete; what else there is to say differs.
    titles = [words.headline for words in WORDS.values() if words.headline != "Payment complete"]
    assert {title for title in titles if titles.count(title) > 1} == {"The time to pay is over"}
    assert len({text for _, text, _ in said}) == len(said)
    for status, found in OF_STATUS.items():
        ending = [one for one in found if one not in (S.TIME_UP, S.TIME_UP_PARTIAL)]
        assert len({sentences(WORDS[one]) for one in ending}) == len(ending), status


@pytest.mark.parametrize("words", ALL_WORDS, ids=lambda words: words.headline)
def test_words_are_short_and_hold_no_markup(words: Words) -> None:
    headline, text, next_step = sentences(words)
    for part in (headline, text, next_step):
        assert not re.search(r"[<>{}]", part)
        assert part == part.strip()
    assert len(headline) <= 50
    for part in (text, next_step):
        assert part.endswith(".")
        assert len(re.findall(r"[.!?](?:\s|$)", part)) <= 2, part
        assert len(part) <= 200


def test_no_word_of_the_trade_leaks() -> None:
    small = [
        *texts.PAYMENT_WORDS.values(),
        *texts.MISMATCHES.values(),
        *texts.PROGRESS_FINALITY.values(),
        *texts.NOTICES.values(),
        *texts.LABELS.values(),
        *REFUND_WORDS.values(),
        *(texts.WARNING, texts.RECEIVED, texts.REST_IN_ANOTHER_COIN, texts.REQUOTING),
        *(texts.CONFIRMING_COUNT, texts.PROGRESS_COUNT),
    ]
    said = [part for words in ALL_WORDS for part in sentences(words)]
    for text in (*said, *(re.sub(r"\{\w+\}", "", one) for one in small)):
        assert not FORBIDDEN & set(re.findall(r"[a-z]+", text.lower())), text


def test_whoever_is_sent_to_the_merchant_has_a_reference() -> None:
    """Planted and seen to fail: the phase of refunds left out of those that show the reference."""
    for one, words in WORDS.items():
        if "reference below" not in words.next_step:
            continue
        shown = [seen for seen in every_view() if seen.situation == one]
        assert shown, one
        assert all("reference" in seen.shows for seen in shown), one


def test_problems_say_what_happens_now_and_whom_to_ask() -> None:
    endings = {Phase.PROBLEM, Phase.REVIEW, Phase.RETURNING, Phase.REFUNDED}
    for one, words in WORDS.items():
        if words.phase in endings:
            assert re.search(r"\{merchant\}|You need not do anything", words.text + words.next_step), one
        if words.phase in (Phase.CLOSED, Phase.REVIEW, Phase.PROBLEM):
            assert re.search(r"[Pp]lease do not|You need not|contact \{merchant\}", words.next_step), one


def test_phases_that_ask_for_money_are_the_open_ones() -> None:
    asking = {one for one, words in WORDS.items() if words.next_step.startswith("We notice")}
    assert asking == {S.AWAITING_PAYMENT, S.PARTIALLY_PAID}


REFUNDS: list[tuple[RefundSeen, ...]] = [(), *(
    (RefundSeen(status=status, has_address=has, amount="1", asset="ETH", network="ethereum"),)
    for status in RefundStatus
    for has in (True, False)
)]  # fmt: skip
MISMATCHES = [
    frozenset[CaseKind](),
    *(
        frozenset({kind})
        for kind in (CaseKind.WRONG_ASSET, CaseKind.WRONG_NETWORK, CaseKind.UNATTRIBUTED_VALUE)
    ),
    frozenset({CaseKind.WRONG_ASSET, CaseKind.WRONG_NETWORK}),
]
PAYMENTS: list[list[dict[str, Any]]] = [
    [],
    [{"status": "confirmed"}],
    [{"status": "confirmed", "block_height": None}],
    [{"status": "orphaned", "block_height": None}],
    [{"status": "confirming", "match": "wrong_asset"}],
]


def every_known() -> Iterator[Known]:
    for withdrawn, left, mismatches, refunds in itertools.product(
        (False, True), (False, True), MISMATCHES, REFUNDS
    ):
        yield Known(withdrawn=withdrawn, mismatches=mismatches, left=left, refunds=refunds)


def test_every_status_leads_to_its_situations_and_to_each_of_them() -> None:
    """Every combination of what is known and what matters there.

    Planted and seen to fail: a withdrawn late payment taken for a late one; a refund told before a dispute.
    """
    reached: dict[Status, set[Situation]] = {status: set() for status in Status}
    moments = [Moment(*flags) for flags in itertools.product((False, True), repeat=3)]
    everything = list(every_known())
    open_ = (Status.CREATED, Status.QUOTED, Status.AWAITING_PAYMENT, Status.PARTIALLY_PAID)
    options = [[option()], [option(amount_detected="0.1"), option(id="opt_2", amount_detected="1")]]
    for status, late, given, ways in itertools.product(Status, LatePayment, PAYMENTS, options):
        shown = invoice(
            status,
            late_payment=late.value,
            payments=[payment(**changes) for changes in given],
            payment_options=ways,
        )
        around = (everything[:20], moments) if status in open_ else (everything, moments[:1])
        for known, moment in itertools.product(*around):
            found = situation(shown, known, moment)
            assert found in OF_STATUS[status], (status, known, moment)
            reached[status].add(found)
    assert reached == {status: set(found) for status, found in OF_STATUS.items()}


@pytest.mark.parametrize(
    ("late", "withdrawn", "found"),
    [
        (LatePayment.ACCEPT, False, S.LATE_ACCEPTED),
        (LatePayment.REVIEW, False, S.LATE_REVIEWED),
        (LatePayment.REFUND, False, S.LATE_REFUNDED),
        (LatePayment.ACCEPT, True, S.LATE_WITHDRAWN),
        (LatePayment.REFUND, True, S.LATE_WITHDRAWN),
    ],
)
def test_late_money_is_told_by_the_rule(late: LatePayment, withdrawn: bool, found: Situation) -> None:
    paid = option(amount_detected="0.0196", amount_due="0", confirmations=3)
    seen = view(
        Status.LATE_PAID,
        late_payment=late.value,
        payment_options=[paid],
        known=Known(withdrawn=withdrawn),
    )
    assert seen.situation == found
    assert ("progress" in seen.shows) == (found is S.LATE_ACCEPTED)
    assert "pay" not in seen.shows


@pytest.mark.parametrize(
    ("status", "has_address", "found"),
    [
        (RefundStatus.REQUESTED, False, S.REFUND_ADDRESS),
        (RefundStatus.APPROVED, False, S.REFUND_ADDRESS),
        (RefundStatus.REQUESTED, True, S.REFUND_PREPARED),
        (RefundStatus.APPROVED, True, S.REFUND_PREPARED),
        (RefundStatus.AWAITING_SIGNATURE, True, S.REFUND_PREPARED),
        (RefundStatus.BROADCAST, True, S.REFUND_SENT),
        (RefundStatus.CONFIRMING, True, S.REFUND_CONFIRMING),
        (RefundStatus.NEEDS_ATTENTION, True, S.REFUND_ATTENTION),
        (RefundStatus.REJECTED, False, None),
        (RefundStatus.FAILED, True, None),
    ],
)
def test_a_refund_is_told_by_where_it_is(
    status: RefundStatus, has_address: bool, found: Situation | None
) -> None:
    """It leads where it decides the ending, and stands beside it where the order is paid or under dispute."""
    refund = RefundSeen(
        status=status,
        has_address=has_address,
        amount="0.01",
        asset="ETH",
        network="ethereum",
        tx_hash="0xdone",
    )
    known = Known(refunds=(refund,))
    for ended, otherwise in (
        (Status.UNDERPAID, S.UNDERPAID),
        (Status.LATE_PAID, S.LATE_REVIEWED),
        (Status.EXPIRED, S.EXPIRED),
        (Status.REVIEW_REQUIRED, S.REVIEW),
    ):
        assert view(ended, known=known).situation == (found or otherwise)
    for stands in (Status.PAID, Status.DISPUTED, Status.AWAITING_PAYMENT):
        seen = view(stands, known=known)
        assert seen.situation == stands.value
        assert ("refunds" in seen.shows) == (found is not None)
    listed = view(Status.PAID, known=known).refunds
    said = [(one.amount, one.asset, one.network_name, one.text, one.tx_hash) for one in listed]
    assert said == ([("0.01", "ETH", "Ethereum", REFUND_WORDS[found], "0xdone")] if found else [])


def test_a_review_with_its_own_cause_is_not_hidden_by_a_refund_of_something_else() -> None:
    refund = RefundSeen(
        status=RefundStatus.BROADCAST, has_address=True, amount="1", asset="ETH", network="ethereum"
    )
    known = Known(mismatches=frozenset({CaseKind.WRONG_ASSET}), refunds=(refund,))
    assert view(Status.REVIEW_REQUIRED, known=known).situation == S.REVIEW_WRONG_ASSET


def test_what_arrived_and_what_was_missing_is_named_in_each_coin() -> None:
    one = option(asset="USDC", amount_detected="19.6", amount_due="9.8")
    other = option(id="opt_2", amount_detected="0.004", amount_due="0.00392")
    alone = view(Status.UNDERPAID, payment_options=[one, option(id="opt_2")])
    assert "19.6 USDC came, 9.8 USDC was missing" in alone.text
    both = view(Status.UNDERPAID, payment_options=[one, other])
    assert "19.6 USDC and 0.004 ETH came, 9.8 USDC or 0.00392 ETH was missing" in both.text
    # Decided about, so that no option holds it: still a sentence.
    assert "a part came, the rest was missing" in view(Status.UNDERPAID, payment_options=[option()]).text


def test_a_price_paid_in_several_coins_is_explained_without_mixing_them() -> None:
    one = option(asset="USDC", amount_detected="19.6", amount_due="17.15")
    other = option(id="opt_2", amount_detected="0.0049", amount_due="0.00686")
    third = option(id="opt_3", asset="POL", network="polygon", amount_due="81.7")
    seen = view(Status.PARTIALLY_PAID, payment_options=[one, other, third])
    assert seen.situation == S.PARTIALLY_PAID_IN_SEVERAL
    assert "USDC and ETH" in seen.text
    assert [way.amount for way in seen.options] == ["17.15", "0.00686", "81.7"]
    assert [way.received_text for way in seen.options] == [
        "Paid in part with USDC and ETH: this is the rest in USDC",
        "Paid in part with USDC and ETH: this is the rest in ETH",
        "Paid in part with USDC and ETH: this is the rest in POL",
    ]
    part = view(Status.PARTIALLY_PAID, payment_options=[one, option(id="opt_2", amount_due="0.00686")])
    assert part.situation == S.PARTIALLY_PAID
    assert [way.received_text for way in part.options] == [
        "19.6 USDC of 0.0196 USDC received",
        "Paid in part with USDC: this is the rest in ETH",
    ]


def quoted(seconds: int, **changes: Any) -> Any:
    rate = msgspec.structs.replace(option().rate, expires_at=NOW + timedelta(seconds=seconds))
    return option(rate=rate, **changes)


def test_an_amount_that_ends_early_counts_down_and_is_not_asked_after_its_end() -> None:
    """Planted and seen to fail: the address of an outdated amount shown."""
    ways = [quoted(60), quoted(900, id="opt_2")]
    before = view(Status.AWAITING_PAYMENT, payment_options=ways)
    assert [one.quote_seconds_left for one in before.options] == [60, None]
    assert [one.requoting_text for one in before.options] == [None, None]
    after = view(Status.AWAITING_PAYMENT, payment_options=ways, now=NOW + timedelta(seconds=60))
    assert [one.address is not None for one in after.options] == [False, True]
    assert [one.uri is not None for one in after.options] == [False, True]
    assert after.options[0].requoting_text == texts.REQUOTING.format(asset="ETH")
    assert after.situation == S.AWAITING_PAYMENT
    alone = view(Status.AWAITING_PAYMENT, payment_options=ways[:1], now=NOW + timedelta(seconds=60))
    assert alone.situation == S.REQUOTING
    assert "pay" not in alone.shows
    assert "countdown" in alone.shows
    again = view(Status.AWAITING_PAYMENT, payment_options=[quoted(120)], now=NOW + timedelta(seconds=61))
    assert (again.situation, again.options[0].quote_seconds_left) == (S.AWAITING_PAYMENT, 59)


def test_amounts_to_choose_from_count_down_to_the_soonest() -> None:
    ways = [quoted(60, status="quoted", address=None), quoted(300, id="opt_2", status="quoted", address=None)]
    seen = view(Status.QUOTED, payment_options=ways)
    assert seen.quote_seconds_left == 60
    assert "quotes" in seen.shows
    whole = view(Status.QUOTED, payment_options=[option(status="quoted", address=None)])
    assert whole.quote_seconds_left is None
    assert "quotes" not in whole.shows


@pytest.mark.parametrize("status", [Status.PAID, Status.CONFIRMING, Status.UNDERPAID, Status.EXPIRED])
def test_nobody_waits_for_an_amount_that_is_not_asked_any_more(status: Status) -> None:
    way = view(status, payment_options=[quoted(60)], now=NOW + timedelta(seconds=100)).options[0]
    assert (way.requoting_text, way.quote_seconds_left, way.quote_ends_at) == (None, None, None)


def test_time_alone_is_no_news_but_its_end_is() -> None:
    def seen(seconds: int) -> CustomerView:
        return without_clock(
            view(Status.AWAITING_PAYMENT, payment_options=[quoted(60)], now=NOW + timedelta(seconds=seconds))
        )

    assert seen(1) == seen(59)
    assert seen(59) != seen(60)
    assert seen(60) == seen(899)
    assert seen(899) != seen(900)


@functools.cache
def every_view() -> tuple[CustomerView, ...]:
    """A view for every status and everything that can be known about it."""
    return tuple(_every_view())


def _every_view() -> Iterator[CustomerView]:
    late = list(LatePayment)
    for status, known in itertools.product(Status, every_known()):
        for rule in late if status is Status.LATE_PAID else late[:1]:
            for given in PAYMENTS[1:4]:
                yield view(
                    status, known=known, late_payment=rule.value, payments=[payment(**one) for one in given]
                )
    yield view(Status.AWAITING_PAYMENT, payment_options=[option(network="left", uri=None)])


def test_whatever_is_known_internals_never_show() -> None:
    for seen in every_view():
        shown = msgspec.json.encode(seen).decode()
        assert not re.search(r"secret|internal|jo@customer|0xSender|wal_|exc_|rfd_", shown)


def test_every_payment_that_is_not_what_was_asked_says_so() -> None:
    for match, text in texts.MISMATCHES.items():
        shown = view(Status.REVIEW_REQUIRED, payments=[payment(match=match.value)]).payments
        assert [one.text for one in shown] == [text]
    assert set(texts.PAYMENT_WORDS) == set(PaymentStatus)

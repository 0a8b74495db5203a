"""What a customer may see: words for every status, nothing else than meant, and never too much or too early."""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec
import pytest

from tallystick.core.currencies import MINOR_UNIT_DECIMALS
from tallystick.core.invoice import Match, PaymentStatus, Status
from tallystick.core.money import format_units
from tallystick.services import checkout_texts as texts
from tallystick.services.checkout import name_in_sentence, network_name, price_text
from tallystick.services.checkout_situations import Situation
from tallystick.services.checkout_words import WORDS
from tests.web.samples import ADDRESS, NOW, option, payment, view
from tests.web.shop import NETWORKS


def test_every_payment_status_has_words() -> None:
    assert set(texts.PAYMENT_WORDS) == set(PaymentStatus)


@pytest.mark.parametrize("status", Status)
def test_internals_never_show(status: Status) -> None:
    encoded = msgspec.json.encode(view(status, payments=[payment()])).decode()
    for secret in (
        "secret",
        "jo@customer",
        "internal",
        "static",
        "0xSender",
        "derivation",
        "tolerance",
        "wal_",
    ):
        assert secret not in encoded, secret


@pytest.mark.parametrize("status", Status)
def test_links_lead_back_only_when_they_fit(status: Status) -> None:
    seen = view(status)
    complete = status in (Status.PAID, Status.OVERPAID, Status.SETTLED)
    assert (seen.success_url is not None) == complete
    assert not (seen.success_url and seen.cancel_url)
    unpaid = (Status.CREATED, Status.QUOTED, Status.AWAITING_PAYMENT, Status.EXPIRED, Status.CANCELED)
    assert (seen.cancel_url is not None) == (status in unpaid)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "ftp://x"])
def test_only_web_links_become_links(url: str) -> None:
    assert view(Status.PAID, success_url=url).success_url is None


@pytest.mark.parametrize("status", Status)
def test_an_address_shows_only_while_money_is_asked_for(status: Status) -> None:
    seen = view(status)
    payable = status in (Status.AWAITING_PAYMENT, Status.PARTIALLY_PAID)
    assert (seen.options[0].address is not None) == payable
    assert (seen.options[0].uri is not None) == payable
    assert ("pay" in seen.shows) == payable
    assert ADDRESS in msgspec.json.encode(seen).decode() or not payable


@pytest.mark.parametrize("status", [Status.QUOTED, Status.AWAITING_PAYMENT, Status.PARTIALLY_PAID])
def test_after_the_time_nothing_can_be_paid(status: Status) -> None:
    seen = view(status, now=NOW + timedelta(seconds=900))
    assert seen.headline == "The time to pay is over"
    assert seen.seconds_left == 0
    assert not set(seen.shows) & {"pay", "choose", "others", "countdown"}
    assert seen.options[0].address is None
    assert "pay" in view(Status.AWAITING_PAYMENT, now=NOW + timedelta(seconds=899)).shows


@pytest.mark.parametrize("status", [Status.AWAITING_PAYMENT, Status.PARTIALLY_PAID])
def test_whoever_lost_a_payment_is_not_simply_asked_again(status: Status) -> None:
    """What a reorganisation dropped is usually mined again: paying at once would be paying twice."""
    seen = view(status, payments=[payment(status="orphaned")])
    assert seen.headline == WORDS[Situation.DROPPED].headline
    assert "before you send it again" in seen.next_step
    assert "pay" in seen.shows
    assert view(status, payments=[payment()]).headline == WORDS[Situation(status.value)].headline
    assert view(Status.PAID, payments=[payment(status="orphaned")]).headline == "Payment complete"


def test_after_the_time_nothing_is_left_to_cancel() -> None:
    assert view(Status.AWAITING_PAYMENT).cancel_text.startswith("Cancel")
    assert (
        view(Status.AWAITING_PAYMENT, now=NOW + timedelta(seconds=900)).cancel_text == "Return to Kiln & Clay"
    )


def test_a_part_asks_for_the_rest() -> None:
    uri = f"ethereum:{ADDRESS}@1?value=9600000000000000"
    part = option(amount_detected="0.01", amount_due="0.0096", uri=uri)
    asked = view(Status.PARTIALLY_PAID, payment_options=[part]).options[0]
    assert asked.amount == "0.0096"
    assert asked.uri == uri
    assert asked.received_text == "0.01 ETH of 0.0196 ETH received"


def test_progress_counts_the_slowest_and_never_too_far() -> None:
    quick = option(id="opt_a", amount_detected="1", confirmations=15)
    slow = option(id="opt_b", amount_detected="1", confirmations=2)
    unpaid = option(id="opt_c")
    progress = view(Status.CONFIRMING, payment_options=[unpaid, quick, slow]).progress
    assert progress is not None
    assert (progress.have, progress.need) == (2, 12)
    alone = view(Status.CONFIRMING, payment_options=[quick]).progress
    assert alone is not None
    assert (alone.have, alone.need) == (12, 12)


def test_progress_by_finality_has_words_and_no_count() -> None:
    final = option(amount_detected="1", confirmations=9, confirmations_required=None, finality="finalized")
    seen = view(Status.CONFIRMING, payment_options=[final])
    assert seen.progress is not None
    assert seen.progress.need is None
    assert seen.progress.text == texts.PROGRESS_FINALITY["finalized"]
    assert seen.headline == "Confirming"


def test_the_option_that_money_came_to_is_shown_first() -> None:
    first = option(id="opt_a")
    paid = option(id="opt_b", amount_detected="0.001")
    assert view(Status.PARTIALLY_PAID, payment_options=[first, paid]).selected == "opt_b"
    assert view(Status.AWAITING_PAYMENT, payment_options=[first]).selected == "opt_a"
    assert view(Status.QUOTED, payment_options=[option(address=None, status="quoted")]).selected is None


def test_unknown_tokens_are_not_shown_and_mismatches_are_named() -> None:
    shown = view(
        Status.REVIEW_REQUIRED,
        payments=[payment(asset=None, match="unsupported_token"), payment(asset="USDC", match="wrong_asset")],
    ).payments
    assert [(one.asset, one.text) for one in shown] == [("USDC", texts.MISMATCHES[Match.WRONG_ASSET])]


def test_many_payments_are_bounded() -> None:
    shown = view(Status.PAID, payments=[payment(amount=str(number)) for number in range(1, 60)]).payments
    assert [one.amount for one in shown] == [str(number) for number in range(50, 60)]


@pytest.mark.parametrize("currency", sorted(MINOR_UNIT_DECIMALS))
def test_prices_are_written_exactly(currency: str) -> None:
    decimals = MINOR_UNIT_DECIMALS[currency]
    units = 12345678901234567890123456789012345678901234567
    amount = format_units(units, decimals, places_min=decimals)
    written = price_text(amount, currency)
    assert re.sub(r"[^0-9]", "", written) == str(units)


def test_prices_in_an_asset_are_its_number_and_symbol() -> None:
    assert price_text("0.000000000000000001", "ETH") == "0.000000000000000001 ETH"
    assert price_text("49.00", "USD") == "$49.00"
    assert price_text("1250", "JPY") == "¥1,250"


def test_names_in_sentences_are_short_and_keep_their_direction() -> None:
    assert name_in_sentence("Kiln & Clay") == "Kiln & Clay"
    assert name_in_sentence("W" * 200) == "W" * 39 + "…"
    assert name_in_sentence("متجر") == "\u2068متجر\u2069"
    assert name_in_sentence("\u202egnp") == "\u2068\u202egnp\u2069"


def test_nobody_is_invited_to_pay_on_a_network_that_nobody_watches() -> None:
    """It left the configuration while the invoice waited: what is sent there now goes unseen."""
    for status in (Status.AWAITING_PAYMENT, Status.PARTIALLY_PAID):
        gone = view(status, payment_options=[option(network="left", uri=None)])
        assert (gone.options[0].address, gone.options[0].uri) == (None, None)
        assert "pay" not in gone.shows
        assert gone.next_step.startswith("Please do not send anything.")
        other = view(status, payment_options=[option(network="left", uri=None), option(id="opt_2")])
        assert [one.address for one in other.options] == [None, ADDRESS]


def test_networks_have_the_names_customers_know() -> None:
    assert network_name("ethereum", NETWORKS) == "Ethereum"
    assert network_name("my_test-chain", NETWORKS) == "My Test Chain"

"""Planted bugs: for each invariant mistakes that break it, each of which the simulation has to find.

For: `test_plants`, `tools.plants` and the tables of `docs/correctness.md`. Holds true: a plant changes the product,
never the simulation or a rule; what it is, which invariant it breaks and which rules may find it stands with it.
A bug that the database refuses by itself is planted together with the mistake in the database.
Must not: be imported by the product.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from tallystick.core.assess import Marker
from tallystick.core.chain import Connected
from tallystick.core.errors import IllegalTransition, StaleWrite
from tallystick.core.webhook import Decision, DeliveryStatus
from tallystick.db.sql import load
from tests.simulation.planting import Ground, Plant

INVARIANTS: Final = {
    1: "Postings sum to zero per asset and are never edited.",
    2: "Credited equals the canonical transfers at their required depth, and is never more than was canonical to us.",
    3: "Each credit key is live at most once.",
    4: "No canonical transfer to an issued address is absent.",
    5: "Every transition is a legal edge with evidence.",
    6: "Final states leave only by the named exceptional edges.",
    7: "Replaying the facts reproduces every state and balance.",
    8: "One event per transition, with a stable id, numbered without gaps per object.",
    9: "An endpoint that is up long enough gets everything; a dead one delays others by less than a stated bound.",
    10: "Everything unfinished has a due time and an owner, and nothing idles past it.",
    11: "The cursor moves only over fully processed, parent-linked blocks.",
    12: "Refunds never exceed credits; one refund has at most one transaction.",
    13: "Nobody reads or changes another merchant's objects.",
    14: "A quote never asks less than the price, nor a unit more than one above it.",
    15: "An API call repeated across a crash has one effect.",
}
"""What must hold, by number."""

PLANTS: Final[dict[str, Plant]] = {}


def plant(invariant: int, *rules: str) -> Callable[[Callable[[Ground], None]], Callable[[Ground], None]]:
    """Register a function that plants a bug: which invariant it breaks, and the rules of which any may find it."""

    def register(put: Callable[[Ground], None]) -> Callable[[Ground], None]:
        about = " ".join((put.__doc__ or "").split())
        PLANTS[put.__name__] = Plant(put.__name__, about, invariant, frozenset(rules), put)
        return put

    return register


# -- the books


@plant(1, "entry-balance", "entry-postings")
def a_line_is_left_out(ground: Ground) -> None:
    """The statement that writes an entry forgets the lines of one account, and the trigger against it looks away."""
    statement = load("ledger").insert_entries
    ground.reword(
        "ledger",
        "insert_entries",
        statement.sql.rstrip(" ;\n"),
        statement.sql.rstrip(" ;\n") + _NO_OVERPAYMENT,
    )
    ground.deafen("ledger_entry_balances")


_NO_OVERPAYMENT: Final = "\nWHERE g.account <> 'overpayment'"


@plant(1, "guard")
def the_books_may_be_edited(ground: Ground) -> None:
    """A migration for a repair drops the trigger that keeps postings as they are, and nobody puts it back."""
    ground.database(
        "DROP TRIGGER postings_only_grow ON postings",
        "CREATE TRIGGER postings_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON postings "
        "FOR EACH STATEMENT EXECUTE FUNCTION ledger_only_grows()",
    )


@plant(1, "entry-once", "replay-books")
def nothing_is_taken_back(ground: Ground) -> None:
    """What is no longer so is not reversed: the new entry is written, the old one stays in force."""

    def make(real: Any) -> Any:
        async def insert_entries(connection: Any, writes: Any, at: Any) -> None:
            await real(connection, [write for write in writes if write.reverses is None], at)

        return insert_entries

    ground.put("tallystick.db.ledger.insert_entries", make)


# -- credit


@plant(2, "payment-confirmed")
def one_confirmation_too_many(ground: Ground) -> None:
    """Confirmations are counted from the block above: each payment has one more than it has."""
    ground.put(
        "tallystick.core.chain.confirmations",
        lambda real: lambda anchor, view: real(anchor, view) + (anchor is not None),
    )


@plant(2, "payment-confirmed", "replay-payment", "replay-status", "amount-paid")
def a_fork_is_not_looked_at(ground: Ground) -> None:
    """A reorganisation takes blocks out of the best chain, and forgets to judge what they held."""

    def make(real: Any) -> Any:
        async def disconnect(*args: Any) -> set[str]:
            await real(*args)
            return set()

        return disconnect

    ground.put("tallystick.services.intake._disconnect", make)


@plant(2, "amount-paid", "replay-amount")
def an_amount_never_falls(ground: Ground) -> None:
    """What is credited is only ever raised, "so that a late writer cannot lower it"."""
    ground.reword(
        "invoices",
        "update_invoices",
        "amount_paid = g.amount_paid",
        "amount_paid = GREATEST(i.amount_paid, g.amount_paid)",
    )


@plant(2, "conflict-absent", "sighting-absent")
def a_conflict_is_not_recorded(ground: Ground) -> None:
    """A transaction that uses up what a payment needed is somebody else's, so it is not looked at."""

    def make(_real: Any) -> Any:
        async def nothing(*_: Any) -> set[str]:
            return set()

        return nothing

    ground.put("tallystick.services.intake._record_conflicts", make)


@plant(2, "sighting-absent")
def a_sighting_stays(ground: Ground) -> None:
    """What a node once showed outside any block counts as seen until a block holds it, gone or not."""
    ground.put("tallystick.services.sightings._judge_live", lambda real: lambda *args: None)


@plant(2, "forged-block", "credited-without-chain", "canonical-transfer-absent", "network-caught-up")
def one_node_is_believed(ground: Ground) -> None:
    """Blocks are taken from whichever node answers, and no other one is asked whether it has them."""

    def make(_real: Any) -> Any:
        async def agreed(*_: Any) -> None:
            return None

        return agreed

    ground.put("tallystick.chains.simulated.source.SimulatedSource.confirm_agreement", make)


@plant(3, "credited-twice", "conflict-absent")
def a_transfer_is_not_found_again(ground: Ground) -> None:
    """A transfer that was seen before gets another key where it is mined again: the one it had is live as well."""
    ground.put(
        "tallystick.services.credit_keys.stored_identity", lambda real: lambda row: (row["tx_hash"], "?")
    )


@plant(4, "canonical-transfer-absent")
def a_key_without_a_place(ground: Ground) -> None:
    """A transfer is named by its transaction and channel: of a batch only the first one is seen."""

    def make(real: Any) -> Any:
        async def keyed(connection: Any, network: Any, transfers: Any) -> Any:
            first = {(one.tx_hash, one.channel): one for one in reversed(transfers)}
            return await real(
                connection, network, [one for one in transfers if first[one.tx_hash, one.channel] is one]
            )

        return keyed

    ground.put("tallystick.services.intake.keyed", make)


class _Anything:
    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


@plant(4, "canonical-transfer-absent")
def a_block_is_not_checked(ground: Ground) -> None:
    """What a node tells of a block is taken as all of it, without comparing it with what its hash commits to."""
    ground.put("tallystick.chains.simulated.source.content_digest", lambda real: lambda *args: _Anything())


# -- states


@plant(5, "transition-edge")
def steps_are_skipped(ground: Ground) -> None:
    """A status is set to what it is now, whatever lies between."""
    ground.put(
        "tallystick.services.assessing.steps",
        lambda real: lambda current, target, late=False: () if current is target else (target,),
    )


@plant(5, "transition-evidence")
def evidence_is_left_out(ground: Ground) -> None:
    """Transitions because of the end of a window say nothing of what they rest on, and no constraint asks for it."""
    ground.database(
        "ALTER TABLE transitions DROP CONSTRAINT transitions_evidence_check",
        "ALTER TABLE transitions ADD CONSTRAINT transitions_evidence_check "
        "CHECK (jsonb_typeof(evidence) = 'array' AND jsonb_array_length(evidence) > 0)",
    )
    ground.put("tallystick.services.assessing.evidence_of", lambda real: lambda *args: ())

    def make(real: Any) -> Any:
        async def assess(connection: Any, ctx: Any, ids: Any, cause: Any) -> None:
            await real(connection, ctx, ids, replace(cause, evidence=()))

        return assess

    ground.put("tallystick.workers.expire.assess_invoices", make)


@plant(6, "transition-edge")
def a_canceled_invoice_is_paid(ground: Ground) -> None:
    """Money for a canceled invoice un-cancels it, and the table of edges is only asked for advice."""

    def paid_after_all(real: Any) -> Any:
        def assess(terms: Any, facts: Any, now: Any) -> Any:
            if facts.transfers:
                facts = replace(facts, decisions=replace(facts.decisions, canceled_at=None))
            return real(terms, facts, now)

        return assess

    def lenient(real: Any) -> Any:
        def steps(current: Any, target: Any, *, late: bool = False) -> Any:
            try:
                return real(current, target, late=late)
            except IllegalTransition:
                return (target,)

        return steps

    # As if it stood in `core.assess`: replaying has the same opinion.
    ground.put("tallystick.services.assessing.assess", paid_after_all)
    ground.put("tallystick.services.audit_replay.assess", paid_after_all)
    ground.put("tallystick.services.assessing.steps", lenient)


@plant(7, "replay-order")
def told_twice_counts_twice(ground: Ground) -> None:
    """The assessment adds up what it is told, and does not ask whether it was told so before."""
    ground.put("tallystick.core.assess._unique", lambda real: list)


@plant(7, "replay-status", "replay-wakeups", "replay-payment")
def windows_end_by_our_clock(ground: Ground) -> None:
    """Whether a window has ended is decided by our clock, and not by how far the chain was read."""

    def make(real: Any) -> Any:
        async def read_views(connection: Any, networks: Any) -> Any:
            now = ground.world.clock.now()
            return {
                name: replace(view, scanned_until=now)
                for name, view in (await real(connection, networks)).items()
            }

        return read_views

    ground.put("tallystick.db.networks.read_views", make)
    ground.reword(
        "intake",
        "due_by_time",
        "CASE WHEN w.network = '' THEN $2::timestamptz ELSE n.scanned_until END",
        ":now::timestamptz",
    )


@plant(7, "log-hash")
def history_is_tidied(ground: Ground) -> None:
    """A job shortens the evidence of old transitions to save space, and a trigger was dropped for it."""

    def make(real: Any) -> Any:
        async def batch(self: Any) -> int:
            async with ground.world.database.transaction() as connection:
                await connection.execute(
                    'UPDATE transitions SET evidence = \'[{"type": "tidied"}]\' WHERE sequence = 2'
                )
            return int(await real(self))

        return batch

    ground.put("tallystick.workers.tidy.Tidier.batch", make)
    ground.deafen("history_only_grows")


# -- events


@plant(8, "event-count", "internal-error", "worker-failed")
def an_event_number_stays(ground: Ground) -> None:
    """A payment whose status changes does not remember the number of its last event."""
    ground.reword(
        "invoices",
        "update_payments",
        "event_sequence = g.event_sequence",
        "event_sequence = p.event_sequence",
    )


@plant(8, "event-transition", "transition-event", "event-gap", "event-count", "event-status", "event-body")
def events_have_their_own_transaction(ground: Ground) -> None:
    """Events are written in a transaction of their own, "to hold locks for less long": a crash leaves one of two."""

    def make(real: Any) -> Any:
        async def publish(connection: Any, ctx: Any, events: Any, **named: Any) -> Any:
            async with ctx.database.transaction() as own:
                return await real(own, ctx, events, **named)

        return publish

    ground.put("tallystick.services.assessing.publish", make)


@plant(8, "delivered-at-least-once", "webhook-complaint")
def a_retry_is_another_event(ground: Ground) -> None:
    """Each attempt is given an id of its own, so that receivers cannot know that they have it already."""

    def make(real: Any) -> Any:
        async def attempt(self: Any, delivery: Any) -> Any:
            if delivery.attempts_made:
                fresh = delivery.event_id[:-1] + str(delivery.attempts_made)
                sent = replace(delivery, event_id=fresh, body=delivery.body.replace(delivery.event_id, fresh))
                return replace(await real(self, sent), delivery=delivery)
            return await real(self, delivery)

        return attempt

    ground.put("tallystick.workers.courier.Courier.attempt", make)


# -- deliveries


@plant(9, "delivered-at-least-once")
def one_failure_is_enough(ground: Ground) -> None:
    """A receiver that answers with an error is not tried again: the event is given up."""

    def make(real: Any) -> Any:
        def decide(answer: Any, **named: Any) -> Any:
            decision: Decision = real(answer, **named)
            if answer.status_code is not None and not answer.accepted and decision.retry_at is not None:
                return replace(decision, status=DeliveryStatus.FAILED, retry_at=None)
            return decision

        return decide

    ground.put("tallystick.services.delivering.decide", make)


@plant(9, "served-in-turn")
def one_queue_for_all(ground: Ground) -> None:
    """Deliveries are claimed in the order in which they are due: a slow endpoint takes all places."""
    sql = load("webhooks").claim.sql
    due = sql[sql.index("due AS (") : sql.index("taken AS (")]
    ground.reword(
        "webhooks",
        "claim",
        due,
        "due AS (SELECT d.id FROM deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id "
        "WHERE d.status = 'pending' AND d.next_attempt_at <= :now AND e.status = 'enabled' AND e.deleted_at IS NULL "
        "AND :failing::boolean IS NOT NULL AND :room::int > 0 AND coalesce(:busy::text[], '{}') IS NOT NULL "
        "AND coalesce(:rooms::int[], '{}') IS NOT NULL "
        "AND :after::text IS NOT NULL ORDER BY d.next_attempt_at, d.id LIMIT :limit FOR UPDATE OF d SKIP LOCKED), ",
    )


@plant(9, "sent-under-lease", "sent-after-success")
def a_claim_is_no_lease(ground: Ground) -> None:
    """A claim leaves the due time as it is, and an outcome is recorded whoever has the delivery now."""
    ground.reword(
        "webhooks", "claim", "SET next_attempt_at = ", "SET next_attempt_at = LEAST(d.next_attempt_at, "
    )
    ground.reword("webhooks", "claim", ", updated_at = ", "), updated_at = ")
    ground.reword("webhooks", "record_outcomes", " AND d.next_attempt_at = o.lease", "")


@plant(9, "sent-after-success")
def an_outcome_is_recorded_late(ground: Ground) -> None:
    """An outcome is recorded without asking whether the delivery is still the one that was claimed."""
    ground.reword(
        "webhooks",
        "record_outcomes",
        " AND d.status = 'pending' AND d.attempts_made = o.attempts_made AND d.next_attempt_at = o.lease",
        "",
    )


@plant(9, "event-sent")
def a_failing_endpoint_is_left_out(ground: Ground) -> None:
    """An endpoint that fails at the moment gets no new deliveries, "so that its backlog does not grow"."""
    ground.reword(
        "events", "enabled_endpoints", "deleted_at IS NULL", "deleted_at IS NULL AND failing_since IS NULL"
    )


@plant(9, "webhook-complaint")
def an_old_secret_ends_at_once(ground: Ground) -> None:
    """A new secret takes the place of the old one, which signs no more: no receiver can change it in time."""
    ground.reword("webhooks", "rotate_secret", "previous_secret = secret", "previous_secret = NULL")


# -- nothing is forgotten


@plant(10, "endpoint-owner")
def an_endpoint_is_disabled_silently(ground: Ground) -> None:
    """An endpoint that is gone is disabled, and nobody is told."""

    def make(_real: Any) -> Any:
        async def nothing(*_: Any, **__: Any) -> list[str]:
            return []

        return nothing

    ground.put("tallystick.services.delivering.open_cases", make)


@plant(10, "replay-wakeups", "invoice-idle")
def a_wakeup_is_not_written(ground: Ground) -> None:
    """What waits for a height is expected to be looked at when its block comes anyway."""

    def make(real: Any) -> Any:
        async def write_wakeups(connection: Any, wanted: Any) -> None:
            kept = {one: tuple(w for w in waits if w.marker is Marker.TIME) for one, waits in wanted.items()}
            await real(connection, kept)

        return write_wakeups

    ground.put("tallystick.db.invoice_writes.write_wakeups", make)


@plant(10, "quote-due")
def a_quote_is_not_looked_at_again(ground: Ground) -> None:
    """A quote that ends before its invoice's window is not put on the list of what is to be quoted anew."""
    ground.reword(
        "invoices",
        "insert_invoice",
        "FROM given WHERE quote_ends_at <",
        "FROM given WHERE false AND quote_ends_at <",
    )


@plant(10, "refund-due")
def a_refund_has_no_due_time(ground: Ground) -> None:
    """A refund that waits to be sent has no time by which somebody looks."""
    ground.reword(
        "refunds",
        "update_refund",
        "attention_at = $16",
        "attention_at = CASE WHEN :status::text = '' THEN :attention_at::timestamptz END",
    )


@plant(10, "replay-case")
def nobody_is_told_of_late_money(ground: Ground) -> None:
    """Exceptions are opened for what comes in time; late money is only logged."""

    def make(real: Any) -> Any:
        def wanted_cases(*args: Any) -> Any:
            return [case for case in real(*args) if case.kind != "late"]

        return wanted_cases

    ground.put("tallystick.services.cases.wanted_cases", make)


# -- the cursor


@plant(11, "canonical-transfer-absent")
def the_cursor_goes_ahead(ground: Ground) -> None:
    """Blocks and cursor are committed first, what the blocks hold afterwards: a crash in between loses payments."""

    def make(real: Any) -> Any:
        async def apply_step(ctx: Any, network: Any, step: Any) -> Any:
            from tallystick.db.networks import SQL
            from tallystick.services.intake import _move_cursor

            async with ctx.database.transaction() as connection:
                row = await SQL.lock_network.one(connection, name=network.name)
                expected = None if step.expected is None else step.expected.hash
                if row is None or row["halted_at"] is not None or row["cursor_hash"] != expected:
                    raise StaleWrite("The cursor is not where it was expected.", object_id=network.name)
                if step.ancestor is not None:
                    height = step.ancestor.height
                    await SQL.disconnect_above.all(connection, network=network.name, height=height)
                for block in step.blocks:
                    await SQL.connect_block.value(
                        connection,
                        network=network.name,
                        hash=block.header.hash,
                        height=block.header.height,
                        parent_hash=block.header.parent_hash,
                        time=block.header.time,
                        counted_time=None,
                    )
                await _move_cursor(connection, network, step, row, step.blocks[-1].header.time)
            return await real(ctx, network, replace(step, expected=step.blocks[-1].header.ref))

        return apply_step

    ground.put("tallystick.workers.follow.apply_step", make)


@plant(11, "chain-parent")
def a_parent_is_not_compared(ground: Ground) -> None:
    """The next block is the one at the next height, whatever it stands on."""
    ground.put(
        "tallystick.workers.batches.connect", lambda real: lambda cursor, header: Connected(header.ref)
    )


# -- refunds


@plant(12, "refund-credit")
def a_limit_is_checked_without_a_lock(ground: Ground) -> None:
    """What is left to give back is read without locking the invoice, and the trigger looks at nothing: of two requests
    at once each sees all of it."""

    def make(real: Any) -> Any:
        async def read_invoices(connection: Any, ids: Any, *, lock: bool = False) -> Any:
            return await real(connection, ids, lock=False)

        return read_invoices

    ground.put("tallystick.db.invoices.read_invoices", make)
    ground.deafen("refund_within_credit")


# -- merchants


@plant(13, "foreign-object")
def a_merchant_is_missing_in_a_where(ground: Ground) -> None:
    """Exceptions, endpoints and events are read by their id alone."""
    for aggregate, names in (
        ("cases", ("lock_exception", "read_exception")),
        ("webhooks", ("endpoint", "lock_endpoint", "event")),
    ):
        for name in names:
            place = f"${load(aggregate).items()[name].parameters.index('merchant_id') + 1}"
            ground.reword(aggregate, name, f"merchant_id = {place}", f"{place}::text IS NOT NULL")


@plant(13, "foreign-object")
def an_owner_is_not_asked(ground: Ground) -> None:
    """Whoever names an invoice may see and change it: whose it is, is not asked."""

    def make(_real: Any) -> Any:
        async def own(_connection: Any, _merchant_id: Any, invoice_id: str) -> str:
            return invoice_id

        return own

    ground.put("tallystick.services.invoices._own", make)


@plant(13, "owner-events", "foreign-event")
def everybody_is_told(ground: Ground) -> None:
    """Where an event goes is asked of all endpoints, whoever's they are."""
    ground.reword(
        "events",
        "enabled_endpoints",
        "SELECT id, merchant_id, events FROM webhook_endpoints\n",
        "SELECT id, m AS merchant_id, events FROM webhook_endpoints, ",
    )
    ground.reword(
        "events",
        "enabled_endpoints",
        "WHERE merchant_id = ANY($1::text[]) AND",
        "unnest($1::text[]) AS m WHERE",
    )


# -- quotes


def _with_steps(count: int) -> Callable[[Any], Any]:
    def make(real: Any) -> Any:
        def quote_amount(price: Any, asset: Any, rate: Any) -> int:
            step = 0 if rate is None else 10 ** (asset.decimals - asset.asked_decimals)
            return max(1, int(real(price, asset, rate)) + count * step)

        return quote_amount

    return make


@plant(14, "quote-price", "quote-true")
def a_quote_is_rounded_down(ground: Ground) -> None:
    """The amount asked is rounded down, as amounts received are."""
    ground.put("tallystick.services.quoting.quote_amount", _with_steps(-1))


@plant(14, "quote-price", "quote-true")
def a_quote_is_rounded_up_twice(ground: Ground) -> None:
    """The amount asked is rounded up, and one unit is added "to be safe"."""
    ground.put("tallystick.services.quoting.quote_amount", _with_steps(1))


@plant(14, "quote-true")
def a_rate_is_kept_for_ever(ground: Ground) -> None:
    """Rates are remembered and never asked again; each quote is right by the rate that it names."""
    known: dict[tuple[str, str], Any] = {}

    def make(real: Any) -> Any:
        async def rate(self: Any, base: str, quote: str) -> Any:
            if (base, quote) not in known:
                known[base, quote] = await real(self, base, quote)
            return known[base, quote]

        return rate

    ground.put("tallystick.simulation.world.WorldRates.rate", make)


# -- one effect


@plant(15, "one-effect-per-call")
def an_answer_is_stored_later(ground: Ground) -> None:
    """The answer is stored after the transaction of its effect: a crash in between makes a repeat a second call."""
    kept: list[tuple[Any, ...]] = []

    def note(real: Any) -> Any:
        async def store(_connection: Any, *args: Any) -> None:
            kept.append((real, *args))

        return store

    def afterwards(real: Any) -> Any:
        async def with_retries(attempt: Callable[[], Awaitable[Any]]) -> Any:
            kept.clear()
            answer = await real(attempt)
            for store, *args in kept:
                async with ground.world.database.transaction() as connection:
                    await store(connection, *args)
            return answer

        return with_retries

    ground.put("tallystick.db.idempotency.store", note)
    ground.put("tallystick.api.answers._with_retries", afterwards)


@plant(15, "one-effect-per-call")
def an_answer_is_stored_first(ground: Ground) -> None:
    """The answer is stored in a transaction of its own before the effect is committed: a crash leaves a promise."""

    def make(real: Any) -> Any:
        async def store(_connection: Any, *args: Any) -> None:
            async with ground.world.database.transaction() as connection:
                await real(connection, *args)

        return store

    ground.put("tallystick.db.idempotency.store", make)


@plant(15, "one-effect-per-call", "internal-error")
def twins_do_not_meet(ground: Ground) -> None:
    """Nothing holds off the second of two equal calls at once."""

    def make(_real: Any) -> Any:
        async def try_lock(*_: Any) -> bool:
            return True

        return try_lock

    ground.put("tallystick.db.idempotency.try_lock", make)


# -- two at once


@plant(15, "deadlock")
def locks_are_taken_backwards(ground: Ground) -> None:
    """A decision locks its invoices before the networks, "so that none is added meanwhile"; a block the other way."""

    def make(real: Any) -> Any:
        async def networks_of(connection: Any, ids: Any) -> Any:
            await connection.fetch(
                "SELECT id FROM invoices WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE", list(ids)
            )
            return await real(connection, ids)

        return networks_of

    ground.put("tallystick.db.invoices.networks_of", make)


# -- outputs


@plant(2, "conflict-absent", "sighting-absent")
def a_conflict_is_seen_on_the_first_input(ground: Ground) -> None:
    """Of what a transaction uses up, only the first is stored: who spends another of its inputs is not noticed."""

    def make(real: Any) -> Any:
        async def record_spends(connection: Any, network: Any, transfers: Any) -> None:
            await real(
                connection, network, [replace(one, spend_keys=one.spend_keys[:1]) for one in transfers]
            )

        return record_spends

    ground.put("tallystick.db.spends.record_spends", make)
    ground.put("tallystick.db.sightings.record_spends", make)


@plant(2, "immature-final", "payment-confirmed")
def maturity_is_ignored(ground: Ground) -> None:
    """What a miner made counts as confirmed as soon as anything else would, long before it can be spent."""
    ground.put("tallystick.core.invoice.required_with", lambda real: lambda requirement, traits: requirement)


@plant(2, "risk-taken", "payment-confirmed")
def a_replaceable_sighting_counts(ground: Ground) -> None:
    """A rule that lets sightings count lets all of them, also those that their senders can replace."""
    ground.put(
        "tallystick.core.assess.counts_at_sight", lambda real: lambda requirement, _: requirement.zero_conf
    )


@plant(7, "time-ahead")
def a_miner_sets_our_clock(ground: Ground) -> None:
    """A block that is dated ahead of its time ends windows: how far the chain was read is what its miner wrote."""

    def make(real: Any) -> Any:
        async def connect(connection: Any, network: Any, header: Any, now: Any) -> Any:
            return await real(connection, replace(network, loose_times=False), header, now)

        return connect

    ground.put("tallystick.services.intake._connect", make)


@plant(2, "spending-untrue")
def a_spending_is_looked_for_among_earlier_blocks(ground: Ground) -> None:
    """Which outputs of ours a block spends is asked before its own are stored: one that it made itself is missed."""
    ground.put("tallystick.services.intake._record_spendings", _of_other_blocks)


def _of_other_blocks(real: Any) -> Any:
    async def record_spendings(connection: Any, network: Any, block: Any) -> None:
        own = {transfer.tx_hash for transfer in block.transfers}
        spends = {key: by for key, by in block.spends.items() if key.rpartition(":")[0] not in own}
        await real(connection, network, replace(block, spends=spends))

    return record_spendings


@plant(2, "internal-untrue")
def ones_own_coins_are_income(ground: Ground) -> None:
    """Who pays is told by the sender's address, as on accounts: outputs have none, so nothing is one's own."""

    ground.put("tallystick.services.intake.origins_of", lambda real: _nobodys)


async def _nobodys(_connection: Any, _network: Any, ours: Any, _merchants: Any) -> list[set[str]]:
    return [set() for _ in ours]


@plant(2, "sight-limit")
def nothing_limits_what_counts_at_sight(ground: Ground) -> None:
    """A rule without an amount lets sightings of any size count: the network's own limit is not asked for."""
    ground.put("tallystick.services.policies._sight_limit", lambda real: lambda network: None)

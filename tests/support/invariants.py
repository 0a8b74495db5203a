"""What must hold in the database after any scenario, whatever happened in it.

For: `open_stand`, which calls `check_invariants` at its end, so that no scenario can forget it; also simulations.
Holds true: every problem is found and named at once, not only the first. What can be said in SQL is said in SQL, apart
from the code under test; replaying the assessment over the stored facts is compared with what is stored.
Must not: change anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from tallystick.core.assess import Assessment, assess
from tallystick.core.cases import DERIVED, CaseKind, wanted_cases
from tallystick.core.invoice import Facts, Match
from tallystick.core.refund import EDGES as REFUND_EDGES
from tallystick.core.transitions import EDGES, Reason
from tallystick.db import invoices as store
from tallystick.db.networks import read_views
from tallystick.db.sql import Connection, Record
from tallystick.services.context import Context
from tests.support.books import ledger_problems

# Each statement lists what breaks the rule in front of it; at rest every list is empty.
_EMPTY: dict[str, str] = {
    "a transition's number is missing": """
        SELECT invoice_id AS object_id FROM transitions GROUP BY invoice_id
        HAVING min(sequence) <> 1 OR max(sequence) <> count(*)""",
    "a transition does not start where the one before ended": """
        SELECT t.invoice_id AS object_id, t.sequence FROM transitions AS t JOIN transitions AS before
            ON before.invoice_id = t.invoice_id AND before.sequence = t.sequence - 1
        WHERE t.from_status IS DISTINCT FROM before.to_status""",
    "a transition has no evidence": """
        SELECT invoice_id AS object_id, sequence FROM transitions WHERE jsonb_array_length(evidence) = 0""",
    "the last transition is not the invoice's status and sequence": """
        SELECT i.id AS object_id, i.status FROM invoices AS i
        WHERE NOT EXISTS (SELECT 1 FROM transitions AS t WHERE t.invoice_id = i.id AND t.sequence = i.sequence
                              AND t.to_status = i.status)
           OR i.sequence <> (SELECT count(*) FROM transitions AS t WHERE t.invoice_id = i.id)""",
    "an object's events have a gap": """
        SELECT object_id FROM events GROUP BY object_id HAVING min(sequence) <> 1 OR max(sequence) <> count(*)""",
    "an object does not know its last event": """
        SELECT o.id AS object_id, o.event_sequence FROM (SELECT id, event_sequence FROM invoices
                                                         UNION ALL SELECT id, event_sequence FROM payments
                                                         UNION ALL SELECT id, event_sequence FROM exceptions
                                                         UNION ALL SELECT id, event_sequence FROM refunds) AS o
        WHERE o.event_sequence <> (SELECT count(*) FROM events AS e WHERE e.object_id = o.id)""",
    "a transition has not exactly one event": """
        SELECT t.invoice_id AS object_id, t.sequence FROM transitions AS t
        WHERE 1 <> (SELECT count(*) FROM events AS e WHERE e.object_id = t.invoice_id
                        AND e.type = 'invoice.' || t.to_status
                        AND (e.body #>> '{data,transition,sequence}')::int = t.sequence
                        AND e.body #>> '{data,object,status}' = t.to_status)""",
    "an invoice's event belongs to no transition": """
        SELECT e.object_id, e.type FROM events AS e
        WHERE e.type LIKE 'invoice.%' AND NOT EXISTS (
            SELECT 1 FROM transitions AS t WHERE t.invoice_id = e.object_id AND 'invoice.' || t.to_status = e.type
                AND t.sequence = (e.body #>> '{data,transition,sequence}')::int)""",
    "a transfer counts where neither its address nor a person says so": """
        SELECT t.id AS object_id FROM transfers AS t JOIN networks AS n ON n.name = t.network
        WHERE NOT EXISTS (
            SELECT 1 FROM addresses AS a WHERE a.family = n.family AND a.address = t.recipient
                AND a.merchant_id = t.merchant_id
                AND (a.invoice_id = t.invoice_id AND a.option_id = t.option_id OR (
                    EXISTS (SELECT 1 FROM decisions AS d WHERE d.invoice_id = t.invoice_id AND d.kind = 'receive'
                                AND t.id = ANY(d.transfer_ids))
                    AND EXISTS (SELECT 1 FROM decisions AS d WHERE d.invoice_id = a.invoice_id AND d.kind = 'send'
                                    AND t.id = ANY(d.transfer_ids)))))""",
    "a payment belongs to another invoice than its transfer": """
        SELECT p.id AS object_id FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
        WHERE (p.merchant_id, p.invoice_id, p.option_id) IS DISTINCT FROM (t.merchant_id, t.invoice_id, t.option_id)""",
    "an open exception is about a transfer of another invoice": """
        SELECT x.id AS object_id, x.kind FROM exceptions AS x JOIN transfers AS t ON t.id = ANY(x.transfer_ids)
        WHERE x.status = 'open' AND t.invoice_id IS DISTINCT FROM x.invoice_id
          AND x.kind <> 'reversed' -- what left the chain may come back, and be attached to another""",
    "an open exception is about something that is in order": """
        SELECT x.id AS object_id, x.kind, x.subject FROM exceptions AS x
        WHERE x.status = 'open' AND (
            x.kind = 'network_halted' AND NOT EXISTS (
                SELECT 1 FROM networks AS n WHERE n.name = x.subject AND n.halted_at IS NOT NULL)
            OR x.kind = 'webhook_failed' AND NOT EXISTS (
                SELECT 1 FROM webhook_endpoints AS e
                WHERE e.id = x.subject AND e.status = 'disabled' AND e.deleted_at IS NULL))""",
    "a transfer was neither in a block nor sighted, or not at its first evidence": """
        WITH held AS (
            SELECT n.transfer_id, b.time FROM anchors AS n
            JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash)
        SELECT t.id AS object_id FROM transfers AS t
        WHERE CASE WHEN EXISTS (SELECT 1 FROM sightings AS s WHERE s.transfer_id = t.id)
            THEN t.first_evidence_at > (SELECT max(h.time) FROM held AS h WHERE h.transfer_id = t.id)
            ELSE NOT EXISTS (SELECT 1 FROM held AS h WHERE h.transfer_id = t.id AND h.time = t.first_evidence_at)
            END""",
    "a sighting counts although a block of the best chain settles it": """
        SELECT s.transfer_id AS object_id FROM sightings AS s
        WHERE s.gone_at IS NULL AND EXISTS (
            SELECT 1 FROM (SELECT transfer_id, network, block_hash FROM anchors
                           UNION ALL SELECT transfer_id, network, block_hash FROM conflicts) AS p
            JOIN blocks AS b ON b.network = p.network AND b.hash = p.block_hash
            WHERE p.transfer_id = s.transfer_id AND b.in_best_chain)""",
    "two transactions that exclude each other are sighted": """
        SELECT t.spend_key AS object_id FROM sightings AS s JOIN transfers AS t ON t.id = s.transfer_id
        WHERE s.gone_at IS NULL GROUP BY t.network, t.spend_key HAVING count(DISTINCT t.tx_hash) > 1""",
    "a transfer stands twice in the best chain": """
        SELECT n.transfer_id AS object_id
        FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash AND b.in_best_chain
        GROUP BY n.transfer_id HAVING count(*) > 1""",
    "a transfer of a known asset has no payment, or one of an unknown token or among our own addresses has": """
        SELECT t.id AS object_id FROM transfers AS t LEFT JOIN payments AS p ON p.transfer_id = t.id
        WHERE (p.id IS NULL) <> (t.asset_symbol IS NULL OR t.internal)""",
    "the best chain has two blocks at one height": """
        SELECT network AS object_id, height FROM blocks WHERE in_best_chain GROUP BY network, height
        HAVING count(*) > 1""",
    "a block of the best chain does not stand on the one below": """
        SELECT b.network AS object_id, b.height FROM blocks AS b JOIN networks AS n ON n.name = b.network
        WHERE b.in_best_chain
          AND b.height > (SELECT min(height) FROM blocks AS f WHERE f.network = b.network AND f.in_best_chain)
          AND NOT EXISTS (SELECT 1 FROM blocks AS p WHERE p.network = b.network AND p.in_best_chain
                              AND p.height = b.height - 1 AND p.hash = b.parent_hash)""",
    "the cursor is not the top of the best chain": """
        SELECT n.name AS object_id, n.cursor_height FROM networks AS n
        WHERE n.cursor_hash IS DISTINCT FROM (SELECT b.hash FROM blocks AS b WHERE b.network = n.name
                                              AND b.in_best_chain ORDER BY b.height DESC LIMIT 1)""",
    "a payment is confirmed outside the best chain or before its requirement was met": """
        SELECT p.id AS object_id FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
        JOIN payment_options AS o ON o.id = p.option_id JOIN networks AS w ON w.name = t.network
        WHERE p.status = 'confirmed' AND p.match <> 'wrong_network' AND NOT EXISTS (
            SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
            WHERE n.transfer_id = t.id AND b.in_best_chain AND CASE o.finality
                WHEN 'depth' THEN w.cursor_height - b.height + 1 >= o.confirmations_required
                WHEN 'safe' THEN b.height <= w.safe_height
                ELSE b.height <= w.finalized_height END)
          AND NOT (o.zero_conf AND (
            EXISTS (SELECT 1 FROM sightings AS s WHERE s.transfer_id = t.id AND s.gone_at IS NULL)
            OR EXISTS (SELECT 1 FROM anchors AS n JOIN blocks AS b ON b.network = n.network AND b.hash = n.block_hash
                       WHERE n.transfer_id = t.id AND b.in_best_chain)))""",
    "an invoice is paid without enough confirmed money": """
        SELECT i.id AS object_id FROM invoices AS i
        WHERE i.status IN ('paid', 'overpaid') AND 1 > (
            SELECT COALESCE(sum(t.amount::numeric(300, 60) * 10000
                                / (q.amount_expected * (10000 - o.tolerance_under_bps))), 0)
            FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
            JOIN payment_options AS o ON o.id = p.option_id
            JOIN quotes AS q ON q.option_id = o.id AND q.number = (
                SELECT max(e.number) FROM quotes AS e
                WHERE e.option_id = o.id AND (e.number = 1 OR e.quoted_at <= t.first_evidence_at))
            WHERE p.invoice_id = i.id AND p.status = 'confirmed' AND p.match = 'matched') + 1e-50
          AND NOT EXISTS (SELECT 1 FROM decisions AS d WHERE d.invoice_id = i.id AND d.kind IN ('accept', 'credit'))""",
    "an invoice credits other than what is confirmed": """
        SELECT i.id AS object_id, i.amount_paid FROM invoices AS i
        WHERE i.amount_paid <> (
            SELECT LEAST(2::numeric ^ 256 - 1, -- the most that is counted
                floor(COALESCE(sum((t.amount * i.amount)::numeric(300, 60) / q.amount_expected), 0) + 1e-50))
            FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
            JOIN quotes AS q ON q.option_id = p.option_id AND q.number = (
                SELECT max(e.number) FROM quotes AS e
                WHERE e.option_id = p.option_id AND (e.number = 1 OR e.quoted_at <= t.first_evidence_at))
            WHERE p.invoice_id = i.id AND p.status = 'confirmed' AND p.match = 'matched')
          AND NOT EXISTS (SELECT 1 FROM decisions AS d WHERE d.invoice_id = i.id AND d.kind IN ('accept', 'credit'))""",
    "a quote's number is missing, or the last one is not in force": """
        SELECT o.id AS object_id, o.quote_number FROM payment_options AS o, LATERAL (
            SELECT count(*) AS quotes, max(q.number) AS last,
                max(q.amount_expected) FILTER (WHERE q.number = o.quote_number) AS amount
            FROM quotes AS q WHERE q.option_id = o.id) AS f
        WHERE f.quotes <> o.quote_number OR f.last <> o.quote_number OR f.amount IS DISTINCT FROM o.amount_expected""",
    "a quote is promised beyond its invoice's window, or overlaps the next": """
        SELECT q.option_id AS object_id, q.number FROM quotes AS q
        JOIN payment_options AS o ON o.id = q.option_id JOIN invoices AS i ON i.id = o.invoice_id
        LEFT JOIN quotes AS n ON n.option_id = q.option_id AND n.number = q.number + 1
        WHERE q.expires_at > i.expires_at OR q.expires_at > n.quoted_at""",
    "an option names a rule that its version does not have": """
        SELECT o.id AS object_id, o.policy_name, o.policy_version FROM payment_options AS o
        WHERE o.policy_name <> 'network default' AND NOT EXISTS (
            SELECT 1 FROM confirmation_policies AS c, jsonb_array_elements(c.rules) AS r
            WHERE c.merchant_id = o.merchant_id AND c.version = o.policy_version AND r ->> 'name' = o.policy_name)""",
    "a refund's history has a gap, or does not end where the refund is": """
        SELECT r.id AS object_id, r.status FROM refunds AS r
        WHERE r.event_sequence <> (SELECT count(*) FROM refund_transitions AS t WHERE t.refund_id = r.id)
           OR NOT EXISTS (SELECT 1 FROM refund_transitions AS t WHERE t.refund_id = r.id
                              AND t.sequence = r.event_sequence AND t.to_status = r.status)
           OR EXISTS (SELECT 1 FROM refund_transitions AS t LEFT JOIN refund_transitions AS before
                          ON before.refund_id = t.refund_id AND before.sequence = t.sequence - 1
                      WHERE t.refund_id = r.id AND t.from_status IS DISTINCT FROM before.to_status)
           OR EXISTS (SELECT 1 FROM refund_transitions AS t WHERE t.refund_id = r.id AND NOT EXISTS (
                          SELECT 1 FROM events AS e WHERE e.object_id = r.id AND e.sequence = t.sequence
                              AND e.type = 'refund.' || t.to_status))""",
    "a refund waits to be sent although what it gives back does not stand": """
        SELECT r.id AS object_id, r.status FROM refunds AS r
        WHERE r.status IN ('approved', 'awaiting_signature') AND EXISTS (
            SELECT 1 FROM unnest(r.basis_ids) AS b(id) WHERE NOT EXISTS (
                SELECT 1 FROM payments AS p WHERE p.transfer_id = b.id AND p.invoice_id = r.invoice_id
                    AND p.status = 'confirmed'))""",
    "a transfer carries out a refund that is another": """
        SELECT t.id AS object_id, t.refund_id FROM refund_transfers AS t JOIN refunds AS r ON r.id = t.refund_id
        WHERE (t.network, t.recipient, t.amount, coalesce(t.contract, ''), t.invoice_id)
           <> (r.network, r.address, r.amount_sent, coalesce(r.contract, ''), r.invoice_id)""",
    "a closed invoice offers an option": """
        SELECT i.id AS object_id FROM invoices AS i JOIN payment_options AS o ON o.invoice_id = i.id
        WHERE i.status IN ('expired', 'underpaid', 'late_paid') AND o.status = 'quoted'""",
}


async def check_invariants(ctx: Context) -> None:
    """Look at everything stored. Raises AssertionError that lists what is wrong."""
    async with ctx.database.connection() as connection, connection.transaction(isolation="repeatable_read"):
        found = await find_problems(connection, ctx)
    assert not found, "\n".join(["the database is not in order:", *found])


async def find_problems(connection: Connection, ctx: Context) -> list[str]:
    """Everything that is wrong as this connection sees it, each in a line."""
    found = [problem async for problem in _by_statement(connection)]
    found += [problem async for problem in _edges(connection)]
    found += [problem async for problem in ledger_problems(connection, ctx)]
    return found + [problem async for problem in _replay(connection, ctx)]


async def _by_statement(connection: Connection) -> AsyncIterator[str]:
    for rule, statement in _EMPTY.items():
        for row in await connection.fetch(statement):
            yield f"{rule}: {dict(row)}"


async def _edges(connection: Connection) -> AsyncIterator[str]:
    reasons = {reason.value for reason in Reason}
    edges = {(start.value, stop.value) for start, stops in EDGES.items() for stop in stops} | {
        (None, "created")
    }
    for row in await connection.fetch(
        "SELECT invoice_id, sequence, from_status, to_status, reason FROM transitions"
    ):
        if (row["from_status"], row["to_status"]) not in edges:
            yield f"an edge is not in the table: {dict(row)}"
        if row["reason"] not in reasons:
            yield f"a reason is not in the published list: {dict(row)}"
    refund_edges = {(start.value, stop.value) for start, stops in REFUND_EDGES.items() for stop in stops}
    for row in await connection.fetch("SELECT refund_id, from_status, to_status FROM refund_transitions"):
        if (row["from_status"], row["to_status"]) not in refund_edges | {(None, "requested")}:
            yield f"an edge of a refund is not in the table: {dict(row)}"


async def _replay(connection: Connection, ctx: Context) -> AsyncIterator[str]:
    """Judge every invoice again from its facts, in both orders, and compare with what is stored."""
    ids = [row["id"] for row in await connection.fetch("SELECT id FROM invoices")]
    wakeups: dict[str, set[tuple[str, str, int]]] = {found: set() for found in ids}
    for row in await connection.fetch("SELECT invoice_id, network, marker, position FROM wakeups"):
        wakeups[row["invoice_id"]].add((row["network"], row["marker"], row["position"]))
    views = await read_views(connection, ctx.networks)
    now = ctx.now()
    for invoice in await store.read_invoices(connection, ids):
        facts = invoice.facts(views)
        judged = assess(invoice.terms, facts, now)
        for problem in _differences(invoice, judged, wakeups[invoice.id]):
            yield f"{invoice.id}: {problem}"
        if assess(invoice.terms, _backwards(facts), now) != judged:
            yield f"{invoice.id}: the order of its facts changes the answer"
        cases = await connection.fetch("SELECT * FROM exceptions WHERE invoice_id = $1", invoice.id)
        for problem in _case_problems(invoice, facts, judged, cases):
            yield f"{invoice.id}: {problem}"


def _case_problems(
    invoice: store.StoredInvoice, facts: Facts, judged: Assessment, rows: list[Record]
) -> Iterator[str]:
    """What is the matter has an open case, or a person has decided about it; no case is open without a reason."""
    wanted = {case.kind: case for case in wanted_cases(invoice.terms, facts, judged)}
    for case in wanted.values():
        covering = [
            row
            for row in rows
            if row["kind"] == case.kind
            and (case.kind is CaseKind.UNSUPPORTED_TOKEN or case.transfer_ids <= set(row["transfer_ids"]))
            and (row["status"] == "open" or row["resolution"]["action"] is not None)
        ]
        if not covering:
            yield f"nobody has to do with it that {sorted(case.transfer_ids)} are {case.kind}"
    for row in rows:
        if row["status"] == "open" and row["kind"] in DERIVED and row["kind"] not in wanted:
            yield f"{row['id']} is open, but nothing is {row['kind']}"


def _backwards(facts: Facts) -> Facts:
    """The same facts told in another order, each twice."""
    return replace(
        facts,
        transfers=tuple(
            replace(fact, anchors=fact.anchors[::-1], conflicts=fact.conflicts[::-1])
            for fact in (*reversed(facts.transfers), *facts.transfers)
        ),
    )


def _differences(
    invoice: store.StoredInvoice, judged: Assessment, wakeups: set[tuple[str, str, int]]
) -> Iterator[str]:
    if judged.status is not invoice.status:
        yield f"stored as {invoice.status}, but its facts say {judged.status}"
    if judged.amount_paid != invoice.amount_paid:
        yield f"{invoice.amount_paid} stored as paid, but its facts say {judged.amount_paid}"
    wanted = {(wakeup.network, wakeup.marker.value, wakeup.position) for wakeup in judged.wakeups}
    if wanted != wakeups:
        yield f"waits for {sorted(wakeups)}, but should for {sorted(wanted)}"
    refunds = {refund.id: refund.status for refund in invoice.refunds}
    for found in judged.refunds:
        if found.status is not refunds[found.refund_id]:
            yield f"refund {found.refund_id} is {refunds[found.refund_id]}, but its facts say {found.status}"
    verdicts = {verdict.transfer_id: verdict for verdict in judged.verdicts}
    for transfer in invoice.transfers:
        verdict, payment = verdicts[transfer.fact.id], transfer.payment
        if payment is None:
            if verdict.match is not Match.UNSUPPORTED_TOKEN and not transfer.fact.internal:
                yield f"transfer {transfer.fact.id} is no payment"
        elif (payment.status, payment.match) != (verdict.status, verdict.match):
            yield f"payment {payment.id} is {payment.status}, but its facts say {verdict.status}"

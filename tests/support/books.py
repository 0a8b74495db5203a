"""What must hold in the books after any scenario, whatever happened in it.

For: `tests.support.invariants`, which asks at the end of every stand; also simulations. Holds true: what can be said in
SQL is said in SQL, apart from the code under test; what stands for each invoice is found again from its facts alone.
Must not: change anything.

Each rule was seen to fail with a planted bug: `opposite` that keeps the signs (balance of the account, exact negation);
`book` that writes the new entry without the reversing one (two in force, not what the facts say); receipts for
transfers whatever their status (on chain); `book` left out of `assessing.save` (not what the facts say).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from tallystick.core.assess import assess
from tallystick.core.books import books
from tallystick.core.errors import Unbalanced
from tallystick.core.ledger import Entry
from tallystick.db import invoices as store
from tallystick.db import ledger
from tallystick.db.networks import read_views
from tallystick.db.sql import Connection
from tallystick.services.context import Context

# Each statement lists what breaks the rule in front of it; at rest every list is empty.
RULES: dict[str, str] = {
    "a ledger entry does not balance": """
        SELECT entry_id AS object_id, network, asset, sum(amount) FROM postings
        GROUP BY entry_id, network, contract, asset HAVING sum(amount) <> 0""",
    "a ledger entry has fewer than two postings": """
        SELECT e.id AS object_id FROM ledger_entries AS e
        WHERE 2 > (SELECT count(*) FROM postings AS p WHERE p.entry_id = e.id)""",
    "a posting is in another merchant's books than its entry": """
        SELECT e.id AS object_id FROM ledger_entries AS e JOIN postings AS p ON p.entry_id = e.id
        WHERE p.merchant_id <> e.merchant_id""",
    "more than one entry of a subject is in force": """
        SELECT e.subject AS object_id, count(*) FROM ledger_entries AS e
        WHERE e.reverses IS NULL AND NOT EXISTS (SELECT 1 FROM ledger_entries AS r WHERE r.reverses = e.id)
        GROUP BY e.subject, e.kind HAVING count(*) > 1""",
    "a reversing entry is not the opposite of what it takes back": """
        SELECT r.id AS object_id FROM ledger_entries AS r JOIN ledger_entries AS e ON e.id = r.reverses
        WHERE (r.kind, r.subject, r.merchant_id) <> (e.kind, e.subject, e.merchant_id) OR EXISTS (
            SELECT 1 FROM (SELECT account, network, contract, asset, amount FROM postings WHERE entry_id = r.id
                           UNION ALL
                           SELECT account, network, contract, asset, amount FROM postings WHERE entry_id = e.id) AS p
            GROUP BY account, network, contract, asset HAVING sum(amount) <> 0)""",
    "the accounts of a denomination do not add up to nothing": """
        SELECT merchant_id AS object_id, network, asset, sum(amount) FROM postings
        GROUP BY merchant_id, network, contract, asset HAVING sum(amount) <> 0""",
    "`onchain` is not what is confirmed less what was sent back": """
        WITH moved AS (
            SELECT p.merchant_id, t.network, coalesce(t.contract, 'native') AS contract, t.amount
            FROM payments AS p JOIN transfers AS t ON t.id = p.transfer_id
            WHERE p.status = 'confirmed' AND NOT t.internal
            UNION ALL
            SELECT r.merchant_id, o.network, coalesce(o.contract, 'native'), -o.amount
            FROM refunds AS r JOIN refund_transfers AS o ON o.refund_id = r.id
            WHERE r.status = 'completed' AND EXISTS (
                SELECT 1 FROM refund_anchors AS a JOIN blocks AS b ON b.network = a.network AND b.hash = a.block_hash
                WHERE a.transfer_id = o.id AND b.in_best_chain)
            UNION ALL
            SELECT merchant_id, network, contract, -amount FROM postings WHERE account = 'onchain'
        )
        SELECT merchant_id AS object_id, network, contract, sum(amount) AS missing FROM moved
        GROUP BY merchant_id, network, contract HAVING sum(amount) <> 0""",
    "an account that only facts of a chain can move is in a currency, or the other way round": """
        SELECT entry_id AS object_id, account FROM postings
        WHERE (network = '') <> (account IN ('receivable', 'expected')) AND account <> 'losses'""",
}


async def ledger_problems(connection: Connection, ctx: Context) -> AsyncIterator[str]:
    """Everything that is wrong with the books as this connection sees them, each in a line."""
    for rule, statement in RULES.items():
        for row in await connection.fetch(statement):
            yield f"{rule}: {dict(row)}"
    async for problem in _replay(connection, ctx):
        yield problem


async def _replay(connection: Connection, ctx: Context) -> AsyncIterator[str]:
    """Find the books of every invoice again from its facts, and compare with what is in force."""
    ids = [row["id"] for row in await connection.fetch("SELECT id FROM invoices")]
    views = await read_views(connection, ctx.networks)
    now = ctx.now()
    wanted: dict[str, Entry] = {}
    for invoice in await store.read_invoices(connection, ids):
        facts = invoice.facts(views)
        found = books(invoice.terms, facts, assess(invoice.terms, facts, now))
        payments = {one.fact.id: one.payment.id for one in invoice.transfers if one.payment is not None}
        wanted |= {payments.get(one, one): entry for one, entry in found.receipts.items()}
        wanted |= found.refunds
        if found.position is not None:
            wanted[invoice.id] = found.position
    subjects = {row["subject"] for row in await connection.fetch("SELECT subject FROM ledger_entries")}
    try:
        stored = {one.about.subject: one.entry for one in await ledger.in_force(connection, subjects)}
    except Unbalanced as error:
        yield f"an entry cannot be read: {error}"
        return
    for subject in sorted(wanted.keys() | stored.keys()):
        if wanted.get(subject) != stored.get(subject):
            yield f"{subject}: booked {stored.get(subject)}, but its facts say {wanted.get(subject)}"

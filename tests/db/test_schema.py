"""The schema against the core, the queries against the schema.

Holds true: what a CHECK lists is what the core enumerates; every column is explained; facts only grow; every statement
is accepted by PostgreSQL; what runs for each block finds its rows by index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from importlib import resources
from typing import Any

import asyncpg
import pytest

from tallystick.core.assess import Marker
from tallystick.core.balance import BalanceOutcome
from tallystick.core.cases import CaseKind, CaseStatus
from tallystick.core.chain import Channel, Finality
from tallystick.core.invoice import (
    DecisionKind,
    LatePayment,
    Match,
    OptionStatus,
    PaymentStatus,
    Status,
)
from tallystick.core.ledger import Account, EntryKind
from tallystick.core.refund import AddressSource, FeePayer, RefundRule, RefundStatus
from tallystick.core.transitions import Reason
from tallystick.core.webhook import DeliveryStatus, EndpointStatus
from tallystick.db.sql import Connection, Statement, load
from tallystick.services.context import ActorType

ENUMS: dict[tuple[str, str], type[StrEnum]] = {
    ("invoices", "status"): Status,
    ("invoices", "late_payment"): LatePayment,
    ("payment_options", "status"): OptionStatus,
    ("payment_options", "finality"): Finality,
    ("transfers", "channel"): Channel,
    ("payments", "match"): Match,
    ("payments", "status"): PaymentStatus,
    ("transitions", "from_status"): Status,
    ("transitions", "to_status"): Status,
    ("transitions", "reason"): Reason,
    ("transitions", "actor_type"): ActorType,
    ("wakeups", "marker"): Marker,
    ("webhook_endpoints", "status"): EndpointStatus,
    ("deliveries", "status"): DeliveryStatus,
    ("exceptions", "kind"): CaseKind,
    ("exceptions", "status"): CaseStatus,
    ("decisions", "kind"): DecisionKind,
    ("balance_checks", "outcome"): BalanceOutcome,
    ("refunds", "status"): RefundStatus,
    ("refunds", "rule"): RefundRule,
    ("refunds", "fee"): FeePayer,
    ("refunds", "address_source"): AddressSource,
    ("refund_transfers", "channel"): Channel,
    ("confirmation_policies", "actor_type"): ActorType,
    ("requirement_raises", "actor_type"): ActorType,
    ("decisions", "actor_type"): ActorType,
    ("refunds", "requested_by_type"): ActorType,
    ("refunds", "decided_by_type"): ActorType,
    ("refunds", "link_by_type"): ActorType,
    ("ledger_entries", "kind"): EntryKind,
    ("postings", "account"): Account,
    ("refund_transitions", "from_status"): RefundStatus,
    ("refund_transitions", "to_status"): RefundStatus,
    ("refund_transitions", "actor_type"): ActorType,
}
# Published words that no enumeration of the core holds.
WORDS: dict[tuple[str, str], set[str]] = {
    ("wallets", "family"): {"evm", "tron", "bitcoin", "litecoin"},
    ("networks", "status"): {
        "following",
        "catching_up",
        "degraded",
        "halted",
        "misconfigured",
        "unavailable",
    },
}
# Facts only grow. What may still be changed or removed is named, with the statement that does it.
FACTS = frozenset(
    {
        "blocks",
        "transfers",
        "anchors",
        "conflicts",
        "transaction_spends",
        "spendings",
        "transitions",
        "transition_log",
        "events",
        "delivery_attempts",
        "quotes",
        "addresses",
        "ledger_entries",
        "postings",
        "decisions",
        "refund_transfers",
        "refund_anchors",
        "refund_transitions",
    }
)
EXCEPTIONS = {
    ("connect_block", "blocks"),  # a known block joins the best chain again: in_best_chain
    ("disconnect_above", "blocks"),  # in_best_chain
    ("prune_blocks", "blocks"),  # old blocks that are nobody's evidence
    # A person attached them to another invoice. Nothing that was observed changes; the address, which stays the old
    # invoice's, and the decisions of both invoices say where they came.
    ("move_transfers", "transfers"),
    # What was only sighted, by our clock, gets the time of its first block where that is earlier.
    ("insert_transfers", "transfers"),
    ("add_traits", "transfers"),  # what a block did not show: only more, never less
}
AGGREGATES = sorted(
    path.name.removesuffix(".sql")
    for path in resources.files("tallystick.db").joinpath("queries").iterdir()
    if path.name.endswith(".sql")
)
STATEMENTS: list[Statement] = [
    statement for aggregate in AGGREGATES for statement in load(aggregate)._statements.values()
]


@pytest.fixture
async def connection(database_url: str) -> Any:
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


async def listed_values(connection: Connection) -> dict[tuple[str, str], set[str]]:
    """Every CHECK that lists texts, as (table, column) to the texts, as PostgreSQL understood it."""
    found: dict[tuple[str, str], set[str]] = {}
    rows = await connection.fetch(
        "SELECT conrelid::regclass::text AS owner, pg_get_constraintdef(oid) AS text "
        "FROM pg_constraint WHERE contype = 'c'"
    )
    for row in rows:
        listed = re.fullmatch(r"CHECK \(\((\w+) = ANY \(ARRAY\[(.*)\]\)\)\)", row["text"])
        if listed is not None:
            found[row["owner"], listed[1]] = set(re.findall(r"'([^']*)'::text", listed[2]))
    return found


async def test_every_list_in_a_check_is_an_enumeration_of_the_core(connection: Connection) -> None:
    """Planted bug seen to fail: a status left out of the CHECK; a member added to an enumeration."""
    expected = {place: {member.value for member in enum} for place, enum in ENUMS.items()} | WORDS
    assert await listed_values(connection) == expected


COLUMN = re.compile(
    r"^    (?P<name>[a-z_]+)\s+(text|bytea|bigint|integer|smallint|boolean|timestamptz|numeric|jsonb?|xid8)"
)


def described_columns(sql: str) -> Iterator[tuple[str, str, str]]:
    """(table, column, explanation) of every column; the explanation may stand where the column's definition ends."""
    table, column = "", ""
    for written in sql.splitlines():
        line = written.replace("    ADD COLUMN ", "    ")
        if opened := re.match(r"CREATE TABLE (\w+) \($|ALTER TABLE (\w+)$", line):
            table = opened[1] or opened[2]
        elif table and (started := COLUMN.match(line)):
            if column:
                yield table, column, ""
            column = started["name"]
        elif line.startswith(")") or re.match(r"    [A-Z]", line):
            if column:
                yield table, column, ""
            column = ""
            table = "" if line.startswith(")") else table
        if table and column and "--" in line:
            yield table, column, line.partition("--")[2].strip()
            column = ""
        if line.partition("--")[0].rstrip().endswith(";"):
            table = ""


async def test_every_column_is_explained_where_it_is_defined(connection: Connection) -> None:
    """Planted bug seen to fail: one explanation removed."""
    folder = resources.files("tallystick.db").joinpath("migrations", "sql")
    explained = {
        (table, column): words
        for path in folder.iterdir()
        for table, column, words in described_columns(path.read_text(encoding="utf-8"))
    }
    rows = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
    )
    columns = {(row["table_name"], row["column_name"]) for row in rows}
    assert len(columns) > 100
    assert {column for column in columns if len(explained.get(column, "")) < 3} == set()


async def test_amounts_are_whole_numbers_with_room_for_256_bits(connection: Connection) -> None:
    rows = await connection.fetch(
        "SELECT table_name, column_name, numeric_precision, numeric_scale FROM information_schema.columns "
        "WHERE table_schema = 'public' AND data_type IN ('numeric', 'real', 'double precision')"
    )
    assert rows
    assert {(row["numeric_precision"], row["numeric_scale"]) for row in rows} == {(78, 0)}
    assert len(str(2**256 - 1)) == 78


async def test_every_time_knows_its_zone(connection: Connection) -> None:
    naive = await connection.fetchval(
        "SELECT count(*) FROM information_schema.columns "
        "WHERE table_schema = 'public' "
        "AND data_type IN ('timestamp without time zone', 'time without time zone', 'date')"
    )
    assert naive == 0


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_facts_only_grow(statement: Statement) -> None:
    """Planted bug seen to fail: `UPDATE transfers SET amount = …` in a file of queries."""
    changed = set(re.findall(r"\bUPDATE\s+(\w+)", statement.sql)) | set(
        re.findall(r"\bDELETE\s+FROM\s+(\w+)", statement.sql)
    )
    if re.search(r"\bDO\s+UPDATE\b", statement.sql):
        changed |= set(re.findall(r"\bINSERT\s+INTO\s+(\w+)", statement.sql))
    for table in changed & FACTS:
        assert (statement.name, table) in EXCEPTIONS


@pytest.mark.parametrize("name", ["connect_block", "disconnect_above"])
def test_of_a_block_only_its_place_in_the_best_chain_changes(name: str) -> None:
    sql = next(statement.sql for statement in STATEMENTS if statement.name == name)
    (assignment,) = re.findall(r"\bSET\s+(.*?)(?:\b(?:WHERE|RETURNING)\b|$)", sql, re.DOTALL)
    assert re.fullmatch(r"in_best_chain = (true|false);?\s*", assignment)


def test_of_a_sighted_transfer_only_the_first_evidence_moves_and_only_back() -> None:
    sql = next(statement.sql for statement in STATEMENTS if statement.name == "insert_transfers")
    update = re.search(
        r"\bDO UPDATE SET (.*?)\s*WHERE (.*?)\s*AND NOT EXISTS \(SELECT 1 FROM anchors", sql, re.DOTALL
    )
    assert update is not None
    assert update[1] == "first_evidence_at = EXCLUDED.first_evidence_at"
    moves_back, nowhere_loose = update[2].split(" AND ")
    assert moves_back == "transfers.first_evidence_at > EXCLUDED.first_evidence_at"
    assert nowhere_loose.startswith("NOT ")


@pytest.mark.parametrize(
    ("table", "writer"),
    [("invoices", "update_invoices"), ("payments", "update_payments"), ("refunds", "update_refund")],
)
def test_exactly_one_statement_changes_a_status(table: str, writer: str) -> None:
    """Planted bug seen to fail: `status = 'canceled'` added to the statement that records a cancellation."""
    update = re.compile(rf"\bUPDATE\s+{table}\b(?:\s+AS\s+\w+)?\s+SET\s+(.*?)\b(?:FROM|WHERE)\b", re.DOTALL)
    writers = [
        statement.name
        for statement in STATEMENTS
        if any(re.search(r"\bstatus\s*=", assignments) for assignments in update.findall(statement.sql))
    ]
    assert writers == [writer]


@pytest.mark.parametrize("aggregate", AGGREGATES)
async def test_every_statement_is_accepted_by_the_database(connection: Connection, aggregate: str) -> None:
    """Planted bug seen to fail: a misspelt column."""
    prepared = 0
    for statement in load(aggregate)._statements.values():
        ready = await connection.prepare(statement.sql)
        assert len(ready.get_parameters()) == len(statement.parameters), statement.name
        prepared += 1
    assert prepared


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_every_statement_is_described(aggregate: str) -> None:
    text = (
        resources.files("tallystick.db").joinpath("queries", f"{aggregate}.sql").read_text(encoding="utf-8")
    )
    assert text.startswith("-- ")
    following = re.findall(r"^-- name: (\S+)\n(.*)$", text, re.MULTILINE)
    assert [name for name, line in following if not re.match(r"-- \S.{9,}", line)] == []
    assert len(following) == len(load(aggregate)._statements)


# Plans ----------------------------------------------------------------------------------------------------------------

ROWS = """
SET session_replication_role = replica; -- rows of one table at a time: what they refer to does not matter to a plan
INSERT INTO addresses (family, address, merchant_id, wallet_id, derivation_index, invoice_id, option_id, issued_at)
SELECT 'evm', 'address-' || n, 'mer', 'wal', n, 'inv-' || n, 'opt-' || n, now() FROM generate_series(1, 20000) AS n;
INSERT INTO wakeups (network, marker, position, invoice_id)
SELECT 'net-' || n % 3, (ARRAY['tip', 'safe', 'finalized', 'time'])[1 + n % 4], n, 'inv-' || n
FROM generate_series(1, 20000) AS n;
INSERT INTO blocks (network, hash, height, parent_hash, time, in_best_chain)
SELECT 'net-' || network, 'block-' || n, n, 'block-' || n - 1, now(), true
FROM generate_series(0, 2) AS network, generate_series(0, 2000) AS n;
INSERT INTO sightings (transfer_id, network, first_at, gone_at)
SELECT 'trf-' || n, 'net-' || n % 3, now(), CASE WHEN n % 100 <> 0 THEN now() END FROM generate_series(1, 20000) AS n;
INSERT INTO networks (name, family, scanned_until)
SELECT 'net-' || n, 'evm', to_timestamp(50) FROM generate_series(0, 2) AS n;
INSERT INTO transfers (id, network, tx_hash, channel, ordinal, sender, recipient, amount, first_evidence_at,
    first_seen_at, merchant_id, invoice_id, option_id)
SELECT 'trf-' || n, 'net-' || n % 3, 'tx-' || n, CASE WHEN n % 2 = 0 THEN 'output' ELSE 'log' END, 0, 's',
    'address-' || n, 1, now(), now(), 'mer', 'inv-' || n, 'opt-' || n
FROM generate_series(1, 20000) AS n;
INSERT INTO transaction_spends (network, spend_key, tx_hash)
SELECT 'net-' || n % 3, 'spend-' || n, 'tx-' || n FROM generate_series(1, 20000) AS n;
INSERT INTO spendings (transfer_id, network, tx_hash, block_hash)
SELECT 'trf-' || n, 'net-' || n % 3, 'tx', 'block-' || n / 50 FROM generate_series(1, 5000) AS n;
INSERT INTO anchors (transfer_id, network, block_hash)
SELECT 'trf-' || n, 'net-' || n % 3, 'block-' || n / 50 FROM generate_series(1, 20000) AS n;
INSERT INTO conflicts (transfer_id, tx_hash, network, block_hash)
SELECT 'trf-' || n, 'tx', 'net-' || n % 3, 'block-' || n / 50 FROM generate_series(1, 5000) AS n;
INSERT INTO payments (id, transfer_id, merchant_id, invoice_id, option_id, match, status, event_sequence, created_at,
    updated_at)
SELECT 'pay-' || n, 'trf-' || n, 'mer', 'inv-' || n, 'opt-' || n, 'matched',
    CASE WHEN n % 2000 = 0 THEN 'orphaned' ELSE 'confirmed' END, 1, now(), now() FROM generate_series(1, 20000) AS n;
INSERT INTO refunds (id, merchant_id, invoice_id, option_id, status, rule, network, asset_symbol, asset_decimals,
    amount, fee, amount_sent, reason, address, address_source, requested_by_type, requested_at, decided_at,
    event_sequence, updated_at)
SELECT 'rfd-' || n, 'mer', 'inv-' || n, 'opt-' || n, 'completed', 'amount', 'net-' || n % 3, 'ETH', 18,
    1, 'merchant', 1, 'why', 'address-' || n, 'customer', 'system', now(), now(), 1, now()
FROM generate_series(1, 20000) AS n;
INSERT INTO balance_checks (network, address, family, invoice_id, started_at, due_at)
SELECT 'net-' || n % 3, 'address-' || n, 'evm', 'inv-' || n, now(),
    CASE WHEN n % 10 = 0 THEN now() + n * interval '1 second' END FROM generate_series(1, 20000) AS n;
INSERT INTO ledger_entries (id, merchant_id, kind, subject, invoice_id, reverses, note, at)
SELECT 'ent-' || n, 'mer', 'position', 'inv-' || n / 3, 'inv-' || n / 3,
    CASE WHEN n % 3 = 1 THEN 'ent-' || n - 1 END, '', now() FROM generate_series(1, 20000) AS n;
INSERT INTO postings (entry_id, position, merchant_id, account, asset, network, contract, decimals, amount)
SELECT 'ent-' || n, side, 'mer', 'onchain', 'ETH', 'net', 'native', 18, 3 - 2 * side
FROM generate_series(1, 20000) AS n, generate_series(1, 2) AS side;
ANALYZE;
"""
PER_BLOCK: list[tuple[str, str, dict[str, Any], set[str]]] = [
    ("intake", "match_recipients", {"family": "evm", "addresses": ["address-7", "elsewhere"]}, {"addresses"}),
    ("intake", "due_by_height", {"network": "net-1", "tip": 60, "safe": 60, "finalized": None}, {"wakeups"}),
    ("intake", "due_by_time", {"network": "net-1", "now": None, "row_count": 200}, {"wakeups"}),
    (
        "spends",
        "open_spends",
        {"network": "net-1", "spend_keys": [f"spend-{n}" for n in range(200)]},
        {"transaction_spends", "transfers", "anchors", "conflicts", "blocks"},
    ),
    (
        "spends",
        "own_outputs",
        {"network": "net-1", "tx_hashes": [f"tx-{n}" for n in range(200)], "ordinals": [0] * 200},
        {"transfers"},
    ),
    ("sightings", "live", {"network": "net-1"}, {"sightings", "transfers", "transaction_spends"}),
    ("sightings", "interest", {"network": "net-1", "row_count": 200}, {"wakeups", "sightings", "transfers"}),
    (
        "intake",
        "touched_by_blocks",
        {"network": "net-1", "hashes": ["block-1"]},
        {"anchors", "conflicts", "transfers"},
    ),
    ("intake", "held_by_block", {"network": "net-1", "hash": "block-1"}, {"anchors", "transfers"}),
    ("invoices", "transfers_of", {"ids": ["inv-7"]}, {"transfers", "payments"}),
    (
        "ledger",
        "in_force",
        {"subjects": ["inv-7", "pay-8"], "kinds": ["position", "receipt"]},
        {"ledger_entries", "postings"},
    ),
    ("intake", "known_transfers", {"network": "net-1", "tx_hashes": ["tx-7", "tx-8"]}, {"transfers"}),
    ("intake", "own_senders", {"family": "evm", "addresses": ["address-7", "elsewhere"]}, {"addresses"}),
    (
        "balances",
        "recheck",
        {"network": "net-1", "hashes": ["block-1"], "at": None},
        {"anchors", "transfers", "balance_checks"},
    ),
    (
        "balances",
        "claim_due",
        {"network": "net-1", "now": None, "lease_until": None, "row_count": 100},
        {"balance_checks"},
    ),
    (
        "balances",
        "read_subjects",
        {"network": "net-1", "family": "evm", "height": 60, "addresses": ["address-7", "address-8"]},
        {"addresses", "balance_checks", "transfers", "anchors"},
    ),
    ("balances", "findings_of", {"network": "net-1", "addresses": ["address-7"]}, {"transfers", "anchors"}),
    # While a requirement is raised, no network moves: every block waits for it.
    (
        "policies",
        "raise_options",
        {"ids": ["inv-7", "inv-8"], "network": "net-1", "confirmations": 9, "words": "why"},
        {"payments"},
    ),
]


@pytest.fixture
async def filled(connection: Connection) -> Connection:
    """Some thousands of rows wherever the number of open or old invoices could make a block expensive."""
    await connection.execute(ROWS)
    return connection


def scans(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(node type, table) of every scan in a plan."""
    if "Relation Name" in plan:
        yield plan["Node Type"], plan["Relation Name"]
    for inner in plan.get("Plans", []):
        yield from scans(inner)


async def test_what_runs_for_every_block_finds_its_rows_by_index(filled: Connection) -> None:
    """Cost follows the block, not the book. Planted bug seen to fail: `lower(a.address)` in the matching."""
    for aggregate, name, given, tables in PER_BLOCK:
        statement = load(aggregate)._statements[name]
        arguments = [given[parameter] for parameter in statement.parameters]
        rows = await filled.fetch(f"EXPLAIN (FORMAT JSON) {statement.sql}", *arguments)
        (plan,) = json.loads(rows[0][0])
        seen = list(scans(plan["Plan"]))
        assert tables <= {table for _, table in seen}, name
        assert [scan for scan in seen if scan[0] == "Seq Scan" and scan[1] in tables] == [], name


async def test_so_does_a_plan_made_for_any_values(filled: Connection) -> None:
    """A statement that a connection runs often is planned once, without its values; most run for every block.

    Planted bug seen to fail: `EXISTS` over the windows in `interest`, which reads windows until one fits.
    """
    await filled.execute("SET plan_cache_mode = force_generic_plan")
    for aggregate, name, _, tables in PER_BLOCK:
        statement = load(aggregate)._statements[name]
        await filled.execute(f"PREPARE planned AS {statement.sql}")
        values = ", ".join("NULL" for _ in statement.parameters)
        rows = await filled.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE planned ({values})")
        await filled.execute("DEALLOCATE planned")
        (plan,) = json.loads(rows[0][0])
        seen = list(scans(plan["Plan"]))
        assert tables <= {table for _, table in seen}, name
        assert [scan for scan in seen if scan[0] == "Seq Scan" and scan[1] in tables] == [], name


async def test_what_lost_its_place_costs_a_block_nothing(filled: Connection) -> None:
    """Sightings that vanished stay without a place for ever, as many as anybody likes to send: no block reads them.

    Only what needs a key that the blocks used up is read; what the best chain holds or rules out is not answered.
    Planted bugs seen to fail: all transfers of the network read; places outside the best chain taken for places.
    """
    await filled.execute("""
        DELETE FROM anchors USING generate_series(10001, 20000) AS n WHERE transfer_id = 'trf-' || n;
        UPDATE payments SET status = 'orphaned' WHERE length(transfer_id) = 9;
        UPDATE blocks SET in_best_chain = false WHERE height = 150;
        INSERT INTO conflicts (transfer_id, tx_hash, network, block_hash) VALUES
            ('trf-10003', 'tx', 'net-1', 'block-9'),
            ('trf-10006', 'tx', 'net-1', 'block-150');
        ANALYZE""")
    # Held by the best chain; by a block that left it; nowhere; nowhere and ruled out; ruled out by a block that left;
    # on another network. Those of network 1 are 1, 4, 7, ….
    held, left, lost, ruled, spared, foreign = 7000, 7501, 10012, 10003, 10006, 10001
    asked = [f"spend-{n}" for n in (held, left, lost, ruled, spared, foreign)]
    statement = load("spends")._statements["open_spends"]
    given = {"network": "net-1", "spend_keys": asked}
    arguments = [given[parameter] for parameter in statement.parameters]
    answered = await filled.fetch(statement.sql, *arguments)
    assert {row["id"] for row in answered} == {f"trf-{n}" for n in (left, lost, spared)}
    rows = await filled.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}", *arguments)
    (plan,) = json.loads(rows[0][0])
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 30 * len(asked)


async def test_a_sequential_scan_would_be_noticed(filled: Connection) -> None:
    rows = await filled.fetch("EXPLAIN (FORMAT JSON) SELECT * FROM addresses WHERE derivation_index % 2 = 0")
    (plan,) = json.loads(rows[0][0])
    assert ("Seq Scan", "addresses") in list(scans(plan["Plan"]))

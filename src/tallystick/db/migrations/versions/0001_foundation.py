"""The foundation: merchants, wallets, networks, invoices, facts, events, deliveries."""

from alembic import op

from tallystick.db.migrate import run_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table. There is no way down: restore a backup instead."""
    run_sql(op, "0001_foundation.sql")

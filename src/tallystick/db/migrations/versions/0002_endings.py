"""Every way a payment can end: decisions, exceptions, refunds, the ledger, policies, rates with their sources."""

from alembic import op

from tallystick.db.migrate import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the tables and columns. There is no way down: restore a backup instead."""
    run_sql(op, "0002_endings.sql")

"""Chains of outputs: many inputs of a transaction, which output was spent, and what makes a transfer risky."""

from alembic import op

from tallystick.db.migrate import run_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Move what transactions use up into a table of its own. There is no way down: restore a backup instead."""
    run_sql(op, "0004_outputs.sql")

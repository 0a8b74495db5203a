"""The log of transitions, chained by hashes; what happened before is chained too."""

from alembic import op

from tallystick.db.migrate import run_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the log and fill it. There is no way down: restore a backup instead."""
    run_sql(op, "0003_transition_log.sql")

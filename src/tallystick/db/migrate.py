"""Bring a database to the schema that this code needs.

For: `tallystick migrate`, `up`, `demo`, tests. Holds true: migrations are hand-written SQL in `migrations/sql`, run in
order by Alembic under an advisory lock, each in one transaction; two starters at once migrate once. A database newer
than the code is refused before anything is touched.
Must not: be imported on the request path (SQLAlchemy is heavy); nothing else uses it.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Final

import asyncpg
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from tallystick.core.errors import DatabaseError

LOCK_KEY: Final = 0x7A11_5715  # any constant: the advisory lock under which one process migrates

CONNECT_SECONDS_MAX: Final = 10


async def migrate(url: str) -> str:
    """Migrate the database at `url` to the newest schema; answer its revision.

    Raises DatabaseError when the database is newer than this code, or cannot be reached.
    """
    script = ScriptDirectory.from_config(_config())
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: _connect(url))
    try:
        async with engine.connect() as connection:
            await connection.execute(text(f"SELECT pg_advisory_lock({LOCK_KEY})"))
            await connection.commit()
            await connection.run_sync(_upgrade, script)
            await connection.commit()
    except OSError as error:
        raise DatabaseError(
            "The database cannot be reached.", remedy="Check TALLYSTICK_DATABASE_URL."
        ) from error
    finally:
        await engine.dispose()
    return str(script.get_current_head())


async def _connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    try:
        return await asyncpg.connect(url, timeout=CONNECT_SECONDS_MAX)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise DatabaseError(
            f"The database cannot be reached ({type(error).__name__}).",
            remedy="Check TALLYSTICK_DATABASE_URL, that the server runs and that the database exists.",
        ) from error


def run_sql(operations: Any, name: str) -> None:
    """Run one file of `migrations/sql` as it is, many statements at once. Called by the revisions."""
    sql = resources.files(__package__).joinpath("migrations", "sql", name).read_text()
    operations.get_bind().connection.dbapi_connection.run_async(lambda raw: raw.execute(sql))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection, script: ScriptDirectory) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise DatabaseError(
            f"The database has schema {current}, which this version of Tallystick does not know.",
            remedy="Run the newer version that migrated it, or restore a backup from before.",
        )
    head = script.get_current_head()
    if current == head:
        return

    def upgrade(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs(str(head), revision)  # noqa: SLF001  # the documented env.py pattern does the same

    with EnvironmentContext(_config(), script, fn=upgrade, destination_rev=head) as environment:
        environment.configure(connection=connection)
        with environment.begin_transaction():
            environment.run_migrations()

"""Which of the database's errors are outages, and which are worth a second try.

For: whoever wraps a use case in a transaction. Holds true: an outage is the database's state, never the request's
fault; a retry is offered only where the whole transaction was rolled back. Must not: retry by itself.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from tallystick.core.errors import DatabaseError, StaleWrite

RETRYABLE: Final = (StaleWrite, asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""Another transaction was in the way. Loading anew and deciding anew is right."""

_OUTAGE: Final = (
    DatabaseError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
    asyncpg.DiskFullError,
    asyncpg.ReadOnlySQLTransactionError,
    ConnectionError,
    TimeoutError,
    OSError,
)


def is_outage(error: BaseException) -> bool:
    """Whether the error says that the database cannot be used now. `asyncpg.DataError`, a defect, is none."""
    return isinstance(error, _OUTAGE) and not isinstance(error, asyncpg.DataError)

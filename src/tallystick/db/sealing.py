"""What a transaction has written into history, until it is sealed at its end.

For: `db.pool`, whose transactions note and seal; `db.invoice_writes`, which tells what it wrote. Holds true: whatever
was noted in a transaction is put into the log of its merchant (see migration 0003) as that transaction's last
statement, so that the locks on the logs' ends are taken after all others; a transaction that wrote no history costs
nothing here.
Must not: decide what is history. What is written past this module cannot be committed: the database asks for the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from tallystick.db.sql import Connection, load

SQL: Final = load("sealing")

# By identity: a connection of a pool can neither be hashed by value nor be told anything. An entry lives as long as the
# transaction that holds the connection.
_unsealed: Final[dict[int, list[tuple[str, int]]]] = {}


@contextmanager
def noting(connection: Connection) -> Iterator[None]:
    """Note what is written on this connection meanwhile."""
    _unsealed[id(connection)] = []
    try:
        yield
    finally:
        del _unsealed[id(connection)]


def note(connection: Connection, transitions: Iterable[tuple[str, int]]) -> None:
    """These transitions (invoice, number) were written on this connection, in this order."""
    noted = _unsealed.get(id(connection))
    if noted is not None:
        noted.extend(transitions)


async def seal(connection: Connection) -> None:
    """Log what was noted. The caller commits next, and writes nothing in between."""
    noted = dict.fromkeys(_unsealed[id(connection)])
    if noted:
        await SQL.seal.value(
            connection,
            invoice_ids=[invoice_id for invoice_id, _ in noted],
            sequences=[sequence for _, sequence in noted],
        )

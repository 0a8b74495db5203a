"""Pages of long lists: newest first, continued by an opaque cursor.

For: every list of the API. Holds true: the cursor is the id of the last object of the page before; ids sort by time, so
the next page is "the newest objects with an id below the cursor", whatever was added meanwhile. Nothing is shown twice.
Must not: count (a total would read the whole list), or know which filters a list has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import msgspec

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200

T = TypeVar("T")
R = TypeVar("R")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page. `next_cursor` is None on the last one."""

    data: list[T]
    next_cursor: str | None


def page_of(rows: Sequence[R], limit: int, id_of: Callable[[R], str]) -> tuple[Sequence[R], str | None]:
    """Split what a query for `limit + 1` rows answered into the page's rows and the cursor of the next page.

    One row more than asked for tells that there is a next page without counting.
    """
    if len(rows) <= limit:
        return rows, None
    kept = rows[:limit]
    return kept, id_of(kept[-1])

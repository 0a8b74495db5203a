"""For how long a node, or what stands before it, does not want to be asked.

For: clients of nodes. Holds true: what cannot be read is no pause; none is longer than a day.
Must not: wait.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

RETRY_AFTER_SECONDS_MAX: Final = 86_400
_REFUSAL_BYTES_MAX: Final = 4096
_SUSPENDED: Final = re.compile(r"suspended for (\d{1,6})\s*s", re.ASCII | re.IGNORECASE)


async def pause_asked_for(response: aiohttp.ClientResponse) -> int | None:
    """For how many seconds whoever answers does not want to be asked: by header, or in words. None: nothing is said."""
    asked = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
    if asked is not None:
        return asked
    return pause_in((await response.content.read(_REFUSAL_BYTES_MAX)).decode("utf-8", "replace"))


def pause_in(text: str) -> int | None:
    """The seconds in a sentence such as "… and the query server is suspended for 5 s"."""
    found = _SUSPENDED.search(text)
    return None if found is None else min(int(found[1]), RETRY_AFTER_SECONDS_MAX)


def retry_after_seconds(header: str | None, now: datetime) -> int | None:
    """The delay in a Retry-After header: seconds or a date (RFC 9110, 10.2.3). None if unreadable."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return min(int(text), RETRY_AFTER_SECONDS_MAX)
    try:
        moment = parsedate_to_datetime(text[:64])
        seconds = (moment - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0, round(seconds)), RETRY_AFTER_SECONDS_MAX)

"""Links that a merchant hands us to send customers to.

For: `success_url` and `cancel_url`. Holds true: an accepted link is an absolute https link (http only to this very
machine, for development), written in ASCII as RFC 3986 demands, without user name or password, and read the same
way by browsers and by us. Must not: resolve names or fetch anything (webhook targets have their own, stricter
guard).
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from tallystick.core.errors import InvalidInput

URL_LENGTH_MAX: Final = 2048

# RFC 3986 section 2: unreserved, reserved and percent-encoded characters. No backslash, which browsers read as a slash.
_URI: Final = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+", re.ASCII)


def check_return_url(text: str, *, pointer: str) -> str:
    """The link as given, if customers may be sent there. Raises InvalidInput at `pointer`."""
    if len(text) > URL_LENGTH_MAX:
        raise InvalidInput.at(pointer, f"must be at most {URL_LENGTH_MAX} characters")
    if _URI.fullmatch(text) is None:
        raise InvalidInput.at(pointer, "must be a link in ASCII; other characters are percent-encoded")
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # raises for a port that is no port
    except ValueError:
        raise InvalidInput.at(pointer, "is not a link that can be read") from None
    problem = _problem(parts)
    if problem is not None:
        raise InvalidInput.at(pointer, problem)
    return text


def _problem(parts: SplitResult) -> str | None:
    if parts.scheme not in ("https", "http"):
        return "must begin with https://"
    if not parts.hostname:
        return "must name a host"
    if "@" in parts.netloc:
        return "must not carry a user name or password"
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        return "must begin with https:// (http is possible to this machine only)"
    return None


def is_loopback(host: str) -> bool:
    """Whether the host is this very machine by its written form: localhost, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

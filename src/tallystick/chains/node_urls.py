"""The addresses of nodes, which often hold a password or an access key.

For: clients of nodes. Holds true: what is shown of an address is host and port; no error repeats the rest.
Must not: connect.
"""

from __future__ import annotations

from typing import Final

import aiohttp
from yarl import URL

from tallystick.core.errors import ConfigurationError

_SECRET_LENGTH_MIN: Final = 8


def node_name(url: str) -> str:
    """Host and port of a node's URL, safe to show. Raises ConfigurationError, without an echo, if it is unusable."""
    address, _ = split_url(url)
    return f"{address.host}:{address.port}"


def split_url(text: str) -> tuple[URL, dict[str, str]]:
    """The URL without its credentials, and these as basic authentication (RFC 7617)."""
    problem = ConfigurationError(
        "A node's URL must be http:// or https:// with a host.", remedy="Correct the network's rpc_urls."
    )
    try:
        url = URL(text)
        user, password = url.user, url.password
        bare = url.with_user(None).with_fragment(None) if url.absolute else url
        port = bare.port
    except (ValueError, TypeError):
        raise problem from None
    if bare.scheme not in ("http", "https") or not bare.host or port is None:
        raise problem
    if user is None and password is None:
        return bare, {}
    if ":" in (user or ""):
        raise problem
    return bare, basic_authorization(user or "", password or "")


def access_key_of(url: str) -> str | None:
    """The name in a URL that has no password: some providers' access key."""
    parts = URL(url)
    return parts.user if parts.password is None else None


def basic_authorization(user: str, password: str) -> dict[str, str]:
    """The header of basic authentication (RFC 7617)."""
    return {"Authorization": aiohttp.encode_basic_auth(user, password, encoding="utf-8")}


def secret_parts(url: URL) -> tuple[str, ...]:
    """What of a URL must not be shown even if a node repeats it: the password, and whatever may be a key."""
    parts = (*url.parts, *url.raw_parts, *url.query.values())
    long = [part for part in parts if len(part) >= _SECRET_LENGTH_MIN]
    key = (url.user, url.raw_user) if url.password is None else ()  # a name alone may be an access key
    return tuple(part for part in (url.password, url.raw_password, *key, *long) if part)

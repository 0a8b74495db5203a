"""An HTTP client that can only reach where webhooks may go.

For: `workers.webhook_sender`. Holds true: a name is resolved by us, every one of its addresses is checked, and
only these very addresses are connected to, so a name server cannot give one answer to the check and another to the
connection; what a socket is opened to is checked once more, which also covers literal addresses in any spelling. Host
header and TLS name stay those of the URL. Proxies, cookies and credentials are not used, answers are not decompressed.
Must not: decide which addresses are allowed (`core.webhook_target` does).

Why at two places: aiohttp asks its resolver for names only, and opens sockets for literals itself. A name with one
private address among public ones is refused as a whole: an honest receiver has no such name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tallystick import __version__
from tallystick.core.webhook_target import refused_text

# Threads that wait for name servers. A name whose server is silent holds one for seconds; the others are free.
RESOLVER_THREADS_MAX: Final = 32
DNS_CACHE_SECONDS: Final = 10  # a changed record is seen soon, and a burst does not ask for each delivery
KEEPALIVE_SECONDS: Final = 15
ADDRESSES_MAX: Final = 16  # of one name; more is not a receiver
USER_AGENT: Final = f"Tallystick/{__version__} (webhooks)"


class TargetRefused(OSError):
    """The address may not be connected to. The message says why, without the address."""


class SystemResolver(AbstractResolver):
    """Asks the system, in threads of its own: the loop's default threads are for everybody."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS_MAX, thread_name_prefix="webhook-resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Every address of `host`. Raises OSError (gaierror) when there is none."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=family_found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family_found, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Let the threads end. Does not wait for name servers."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Passes on what another resolver answers, if every address is allowed."""

    def __init__(self, inner: AbstractResolver, *, allow_private: bool) -> None:
        self._inner = inner
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises TargetRefused when one of them is not allowed, or they are too many."""
        found = await self._inner.resolve(host, port, family)
        if len(found) > ADDRESSES_MAX:
            raise TargetRefused("the host has too many addresses")
        for answer in found:
            _check(answer["host"], "the host has an address that is", allow_private=self._allow_private)
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def _check(address: str, words: str, *, allow_private: bool) -> None:
    reason = refused_text(address, allow_private=allow_private)
    if reason is not None:
        raise TargetRefused(f"{words} {reason}")


def guarded_session(
    *,
    allow_private: bool,
    connections_max: int,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> aiohttp.ClientSession:
    """A client session under the guard; the caller closes it.

    `resolver` replaces the system's (its answers are checked all the same), `tls` the default verification.
    """

    def open_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        _check(str(address[0]), "the host's address is", allow_private=allow_private)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        limit=connections_max,
        limit_per_host=0,  # the deliverer limits by endpoint
        resolver=GuardedResolver(resolver or SystemResolver(), allow_private=allow_private),
        ttl_dns_cache=DNS_CACHE_SECONDS,
        keepalive_timeout=KEEPALIVE_SECONDS,
        socket_factory=open_socket,
        ssl=tls if tls is not None else True,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        raise_for_status=False,
        headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
    )

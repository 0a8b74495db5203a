"""A client for one TRON node's HTTP interface, with limits on everything that goes out and comes back.

For: the TRON source; one client per URL.
Holds true: a question returns a decoded answer, or raises an error of `core.errors.SourceError`'s tree. Requests leave
no faster than the configured rate, attempts included: providers suspend a key that asks too often, for everybody who
uses it. No attempt takes longer or reads more than `RpcLimits` says. The URL's credentials are in no name, error or
log: only host and port are.
Must not: decide what an empty answer means, choose between nodes, or wait for long: a pause that the node asks for is
passed on (`retry_after_seconds`).

Credentials stand in the URL, so that a key goes to the node that it is for and to no other: `https://KEY@host` sends
TronGrid's access key (`TRON-PRO-API-KEY`), `https://user:password@host` basic authentication (RFC 7617).

How providers say that they are asked too often differs: 429, 403 or 503, with Retry-After, or with a sentence that
names the seconds ("… suspended for 5 s"), or with HTTP 200 and that sentence as an error. All of these are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeVar

import aiohttp
import msgspec
from aiolimiter import AsyncLimiter
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)
from yarl import URL

from tallystick.chains.json_rpc import RpcLimits
from tallystick.chains.node_urls import node_name
from tallystick.chains.pauses import pause_asked_for, pause_in
from tallystick.chains.tron.chains import API_KEY_HEADER
from tallystick.chains.tron.messages import Refusal
from tallystick.core.errors import SourceIncomplete, SourceUnavailable

ResultT_co = TypeVar("ResultT_co", covariant=True)
ResultT = TypeVar("ResultT")

PENALTY_SECONDS: Final = 30
"""For how long TronGrid refuses who asked too often and does not say how long."""

PAUSE_SECONDS_MAX: Final = 3600
_MISSING_STATUSES: Final = frozenset({400, 404, 405, 501})
_LIMIT_STATUSES: Final = frozenset({403, 429, 503})
_BRIEF_STATUSES: Final = frozenset({500, 502, 504})
_FOREIGN_LENGTH_MAX: Final = 200
_TOO_OFTEN: Final = re.compile(
    r"rate exceeded|frequency|daily usage|too (?:many|quickly)|suspended for", re.IGNORECASE
)
_REFUSAL: Final = msgspec.json.Decoder(Refusal)


class Decoder(Protocol[ResultT_co]):
    """Turns an answer's bytes into a value. Raises what `msgspec.json.Decoder` raises."""

    def decode(self, body: bytes, /) -> ResultT_co:
        """The value."""
        ...


class MethodMissing(SourceUnavailable):
    """The node has no such method, or not with these parameters."""

    code = "source_unavailable"


class Refused(SourceUnavailable):
    """The node answers with a sentence in place of an answer, which is not about how often it is asked."""

    code = "source_unavailable"


class _Brief(SourceUnavailable):
    """A trouble that may be over at once: worth another attempt within the question."""


class TronClient:
    """Asks one node. Safe to use concurrently. `name` is host and port, safe to show.

    The session is shared and belongs to the caller. Raises ConfigurationError for an unusable URL.
    """

    def __init__(
        self, url: str, session: aiohttp.ClientSession, limits: RpcLimits, *, requests_per_second: float
    ) -> None:
        self.name = node_name(url)
        whole = URL(url)
        self._base = whole.with_user(None).with_fragment(None)
        self._headers = credentials_of(whole)
        self._secrets = tuple(
            part
            for part in (whole.user, whole.raw_user, whole.password, whole.raw_password, *whole.parts)
            if part and len(part) >= 8
        )
        self._session = session
        self._limits = limits
        # One at a time, evenly: a burst that a second's allowance permits still trips some providers' guards.
        self._pace = AsyncLimiter(1, 1 / requests_per_second)
        self._encode = msgspec.json.Encoder().encode
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Brief),
            stop=stop_after_attempt(max(1, limits.attempts_max))
            | stop_after_delay(limits.total_timeout_seconds),
            wait=wait_random_exponential(multiplier=0.1, max=limits.retry_wait_seconds_max),
            reraise=True,
        )

    async def ask(self, path: str, body: Mapping[str, Any], decoder: Decoder[ResultT]) -> ResultT:
        """The decoded answer of a method such as "wallet/getblock".

        Raises MethodMissing, SourceIncomplete for an answer of another shape, or SourceUnavailable.
        """
        answer: bytes = await self._retrying(self._post, path, self._encode(body))
        try:
            return decoder.decode(answer)
        except msgspec.ValidationError:
            self._raise_refusal(path, answer)
            raise SourceIncomplete(
                f"The node's answer to {path} does not have the expected shape.",
                object_id=self.name,
                remedy="It is asked again; look at the node or the proxy before it if this goes on.",
            ) from None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise self._unusable("The node's answer is not JSON (an error page, or cut off).") from None

    def refused(self, path: str, error: str) -> SourceUnavailable:
        """What to raise for the sentence that a node sends in place of an answer, with HTTP status 200."""
        if _TOO_OFTEN.search(error):
            return self._asked_too_often("HTTP 200", pause_in(error))
        told = error[: 4 * _FOREIGN_LENGTH_MAX]
        for secret in self._secrets:
            told = told.replace(secret, "[hidden]")
        told = "".join(one if one.isprintable() else " " for one in told[:_FOREIGN_LENGTH_MAX])
        return Refused(
            f"The node refused {path}: {told}.",
            object_id=self.name,
            remedy="It is asked again; look at the node if this goes on.",
        )

    def _raise_refusal(self, path: str, answer: bytes) -> None:
        """Raise what the node says, if it is a refusal where something else was expected."""
        try:
            refusal = _REFUSAL.decode(answer)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        if refusal.error is not None:
            raise self.refused(path, refusal.error)

    async def _post(self, path: str, body: bytes) -> bytes:
        await self._pace.acquire()
        try:
            async with self._session.post(
                self._base / path, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise await self._bad_status(path, response)
                return await self._read(response)
        except TimeoutError:
            raise self._unusable("The node did not answer in time.") from None
        except aiohttp.ClientError as error:
            # Only the kind is told: the text of these errors may hold the URL.
            raise _Brief(
                f"The node cannot be reached ({type(error).__name__}).",
                object_id=self.name,
                remedy="Check that it runs and listens there.",
            ) from None
        except ValueError:  # its text may hold the URL, too
            raise SourceUnavailable(
                "The node's URL holds a host or credentials that cannot be sent.",
                object_id=self.name,
                remedy="Correct the network's rpc.",
            ) from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, decompressed. Stops reading as soon as it is too large."""
        limit = self._limits.response_bytes_max
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise self._unusable(f"The node's answer is larger than {limit} bytes.")
            chunks.append(chunk)
        return b"".join(chunks)

    async def _bad_status(self, path: str, response: aiohttp.ClientResponse) -> SourceUnavailable:
        status = response.status
        if status in _MISSING_STATUSES:
            return MethodMissing(f"The node has no {path} (HTTP {status}).", object_id=self.name)
        if (
            status in _LIMIT_STATUSES
        ):  # 503 is also what an overloaded node says: then this pause does no harm
            return self._asked_too_often(f"HTTP {status}", await pause_asked_for(response))
        kind = _Brief if status in _BRIEF_STATUSES else SourceUnavailable
        return kind(
            f"The node cannot answer (HTTP {status}).", object_id=self.name, remedy="It is asked again."
        )

    def _asked_too_often(self, how: str, pause_seconds: int | None) -> SourceUnavailable:
        """Never a shorter pause than asked for. 403 also means a key that is not accepted: the two look the same."""
        pause = PENALTY_SECONDS if pause_seconds is None else pause_seconds
        return SourceUnavailable(
            f"The node asks to be asked less often, or does not accept the access key ({how}).",
            object_id=self.name,
            remedy="Lower the network's requests_per_second, or give the node's URL an access key.",
            retry_after_seconds=min(pause, PAUSE_SECONDS_MAX),
        )

    def _unusable(self, what: str) -> SourceUnavailable:
        return SourceUnavailable(what, object_id=self.name, remedy="It is asked again.")


def credentials_of(url: URL) -> dict[str, str]:
    """The headers that a URL's credentials become: a name without a password is an access key."""
    if url.user is None:
        return {}
    if url.password is None:
        return {API_KEY_HEADER: url.user}
    return {"Authorization": aiohttp.encode_basic_auth(url.user, url.password, encoding="utf-8")}

"""One attempt at one delivery: sign, send, and say in words what came of it.

For: `workers.deliver`. Holds true: the body is sent byte for byte as stored and signed as Standard Webhooks says; an
attempt takes at most `timeout_seconds` and a second more to read away the rest of an answer, of which at most
ANSWER_BYTES_MAX are read and nothing is kept; what is reported holds no secret, and of the answer only its status.
Must not: read or write the database, or decide what follows.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import datetime
from types import SimpleNamespace, TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from tallystick.core.webhook import Answer, parse_retry_after
from tallystick.core.webhook_target import url_problem
from tallystick.db.webhooks import ClaimedDelivery
from tallystick.services.context import Context
from tallystick.workers.http_guard import TargetRefused, guarded_session

ATTEMPT_SECONDS_MAX: Final = 15.0
ANSWER_BYTES_MAX: Final = 64 * 1024
ANSWER_READ_SECONDS_MAX: Final = 1.0
_STALE_CONNECTIONS_MAX: Final = 3


class _StaleConnection(Exception):
    """A connection kept from before was closed by the other side just when it was used again."""


class Sender:
    """Sends deliveries over persistent connections. An async context manager; used by one event loop."""

    def __init__(
        self,
        ctx: Context,
        *,
        connections_max: int,
        timeout_seconds: float = ATTEMPT_SECONDS_MAX,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._ctx = ctx
        self._timeout_seconds = timeout_seconds
        self._session = guarded_session(
            allow_private=ctx.allow_private_targets,
            connections_max=connections_max,
            resolver=resolver,
            tls=tls,
        )
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        trace.freeze()
        self._session.trace_configs.append(trace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, delivery: ClaimedDelivery) -> Answer:
        """Make one attempt. Raises nothing but cancellation: whatever goes wrong outside is an answer in words."""
        problem = url_problem(delivery.url, allow_private=self._ctx.allow_private_targets)
        if problem is not None:
            return Answer(None, f"Not sent: {problem}")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                # A connection that went stale says nothing about the receiver: another one is used at once.
                retrying = AsyncRetrying(
                    stop=stop_after_attempt(_STALE_CONNECTIONS_MAX),
                    retry=retry_if_exception_type(_StaleConnection),
                    reraise=True,
                )
                response: aiohttp.ClientResponse = await retrying(self._post, delivery)
        except _StaleConnection:
            return Answer(None, "The connection was closed before an answer came.")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Answer(None, self._words(error))
        answer = self._judge(response)
        await _read_away(response)
        return answer

    async def _post(self, delivery: ClaimedDelivery) -> aiohttp.ClientResponse:
        used: SimpleNamespace = SimpleNamespace(reused=False)
        try:
            return await self._session.post(
                delivery.url,
                data=delivery.body.encode(),
                headers=signed_headers(delivery, self._ctx.now()),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),  # the whole attempt has one limit, set by `send`
                trace_request_ctx=used,
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if used.reused and not isinstance(error, aiohttp.ClientConnectorError):
                raise _StaleConnection from error
            raise

    def _judge(self, response: aiohttp.ClientResponse) -> Answer:
        status = response.status
        if 200 <= status <= 299:
            return Answer(status)
        if 300 <= status <= 399:
            return Answer(status, f"The endpoint answered {status}; redirects are not followed.")
        wait_seconds = parse_retry_after(response.headers.get("Retry-After"), self._ctx.now())
        return Answer(status, f"The endpoint answered {status}.", wait_seconds)

    def _words(self, error: Exception) -> str:
        """What went wrong, for the endpoint's owner. Library texts are not repeated: they can hold addresses."""
        cause = getattr(error, "os_error", error)
        if isinstance(cause, TargetRefused):
            return f"Not sent: {cause}."
        if isinstance(error, TimeoutError):
            return f"No answer came within {self._timeout_seconds:g} s."
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = getattr(error.certificate_error, "verify_message", "")
            return f"The TLS certificate is not valid{f': {reason}' if reason else ''}."
        if isinstance(error, aiohttp.ClientSSLError):
            return "TLS could not be negotiated."
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "The host name could not be resolved."
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
            return f"No connection: {os.strerror(number) if number else 'the network failed'}."
        if isinstance(error, aiohttp.InvalidURL):
            return "Not sent: the URL cannot be used."
        if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError):
            return "The connection was closed before an answer came."
        if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
            return "What came was not a valid HTTP answer."
        return f"The attempt failed ({type(error).__name__})."


def signed_headers(delivery: ClaimedDelivery, at: datetime) -> dict[str, str]:
    """The headers of Standard Webhooks, signed at `at`, by both secrets during a rotation."""
    secrets = [delivery.secret] + ([delivery.previous_secret] if delivery.previous_secret else [])
    signatures = [Webhook(secret).sign(delivery.event_id, at, delivery.body) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


async def _note_reuse(
    _session: aiohttp.ClientSession, used: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    used.trace_request_ctx.reused = True


async def _read_away(response: aiohttp.ClientResponse) -> None:
    """Read the rest of an answer so that its connection can be used again; close it if that takes too much."""
    read = 0
    try:
        async with asyncio.timeout(ANSWER_READ_SECONDS_MAX):
            async for chunk in response.content.iter_any():
                read += len(chunk)
                if read > ANSWER_BYTES_MAX:
                    break
            else:
                response.release()
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        pass  # the status has come, and it decides
    finally:
        response.close()

"""Carrying out a change: one transaction, one effect per idempotency key, one answer.

For: every handler that changes something. Holds true: work, answer and idempotency record commit together; another
transaction in the way is a reason to start over (a few times), never to answer half. Must not: know what is changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import msgspec
from litestar import Response
from litestar.enums import MediaType
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from tallystick.api.request import ApiRequest
from tallystick.core.errors import Malformed
from tallystick.db.sql import Connection
from tallystick.services.failures import RETRYABLE
from tallystick.services.idempotency import Answer, check_key, hash_request, run_once

ATTEMPTS_MAX: Final = 5
WAIT_SECONDS_MAX: Final = 0.5

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]

_encode: Final = msgspec.json.Encoder().encode


class _Identified(msgspec.Struct):
    id: str


async def created(request: ApiRequest, work: Work[T], *, key_required: bool = False) -> Response[T]:
    """Carry out a creation: 201 with the new object and its Location. Raises Malformed without a required key."""
    if key_required and "idempotency-key" not in request.headers:
        raise Malformed("This request needs an Idempotency-Key header.", code="idempotency_key_required")
    return await _change(request, 201, work)


async def changed(request: ApiRequest, work: Work[T]) -> Response[T]:
    """Carry out an action: 200 with the changed object."""
    return await _change(request, 200, work)


async def _change(request: ApiRequest, status: int, work: Work[T]) -> Response[T]:
    key = request.headers.get("idempotency-key") if request.method == "POST" else None
    path: str = request.scope["path"]
    request_hash = b""
    if key is not None:
        check_key(key)
        request_hash = hash_request(request.method, path, await request.body())

    async def answer(connection: Connection) -> Answer:
        return Answer(status, _encode(await work(connection)))

    async def attempt() -> Answer:
        async with request.ctx.database.transaction() as connection:
            if key is None:
                return await answer(connection)
            return await run_once(connection, request.ctx, request.merchant_id, key, request_hash, answer)

    done = await _with_retries(attempt)
    headers = {"idempotent-replayed": "true"} if done.replayed else {}
    if done.status == 201:
        headers["location"] = (
            f"{request.ctx.public_url}{path}/{msgspec.json.decode(done.body, type=_Identified).id}"
        )
    # Bytes on purpose: what was stored under the key is exactly what is sent.
    content = cast("Any", done.body)
    return Response(content, status_code=done.status, media_type=MediaType.JSON, headers=headers)


async def _with_retries(attempt: Callable[[], Awaitable[Answer]]) -> Answer:
    try:
        return await attempt()
    except RETRYABLE:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(RETRYABLE),
            stop=stop_after_attempt(ATTEMPTS_MAX - 1),
            wait=wait_random_exponential(multiplier=0.01, max=WAIT_SECONDS_MAX),
            reraise=True,
        )
        return await retrying(attempt)

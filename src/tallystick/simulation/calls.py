"""Calls of the real application, without sockets.

For: the simulated merchants. Holds true: a call goes through authentication, strict reading, idempotency and error
handling exactly as over HTTP. Must not: repeat a call by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from tallystick.api.edge import Application

_HOST = [(b"host", b"pay.example"), (b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class Response:
    """What a caller got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status <= 299

    def json(self) -> Any:
        """The body's value; None where it is empty."""
        return msgspec.json.decode(self.body) if self.body else None

    @property
    def word(self) -> str:
        """The status, and the problem's code where there is one: for the log."""
        if self.ok or self.status < 400:
            return str(self.status)
        return f"{self.status} {self.json().get('code')}"


async def call(
    app: Application,
    method: str,
    path: str,
    *,
    key: str,
    body: Any = None,
    idempotency_key: str | None = None,
) -> Response:
    """One request and its answer. Whatever the application raises comes out here."""
    where, _, query = path.partition("?")
    headers = [*_HOST, (b"authorization", f"Bearer {key}".encode())]
    if idempotency_key is not None:
        headers.append((b"idempotency-key", idempotency_key.encode()))
    content = b"" if body is None else msgspec.json.encode(body)
    headers.append((b"content-length", str(len(content)).encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": where,
        "raw_path": where.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("203.0.113.7", 40000),
        "server": ("pay.example", 80),
        "state": {},
    }
    arrived = iter([{"type": "http.request", "body": content, "more_body": False}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(arrived, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = next(message for message in sent if message["type"] == "http.response.start")
    answer = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    whole = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return Response(start["status"], answer, whole)

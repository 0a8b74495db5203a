"""Where a webhook may be sent to: every spelling of a private address, names that lie, and TLS names."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from tallystick.core.webhook import Answer
from tallystick.db.pool import Database
from tallystick.db.webhooks import ClaimedDelivery
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context
from tallystick.workers.http_guard import TargetRefused, guarded_session
from tallystick.workers.webhook_sender import Sender
from tests.support.receiver import Receiver, running_receiver

TLS = Path(__file__).parent / "tls"
PUBLIC = "93.184.215.14"
HOST = "shop.example"


class FakeNames(AbstractResolver):
    """Answers every name with the addresses it was given, one set after the other, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


def delivery(url: str) -> ClaimedDelivery:
    return ClaimedDelivery(
        id="dlv_1",
        event_id="evt_1",
        endpoint_id="whe_1",
        attempts_made=0,
        leased_until=datetime(2026, 1, 1, tzinfo=UTC),
        body='{"id":"evt_1"}',
        url=url,
        secret="whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
        previous_secret=None,
    )


async def send(
    ctx: Context, url: str, *, names: AbstractResolver | None = None, tls: ssl.SSLContext | None = None
) -> Answer:
    async with Sender(ctx, connections_max=4, timeout_seconds=5, resolver=names, tls=tls) as sender:
        return await sender.send(delivery(url))


def context(*, allow_private: bool) -> Context:
    """A context without a database: a sender must not need one."""
    return Context(
        database=cast(Database, None),
        networks={},
        rates=StaticRates({}),
        public_url="https://pay.example.com",
        allow_private_targets=allow_private,
    )


STRICT = context(allow_private=False)
LENIENT = context(allow_private=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "0177.0.0.1",
        "localhost",
        "app.localhost",
        "0.0.0.0",
        "0",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fd00::1]",
    ],
)
@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_private_literals_are_refused_without_a_connection(
    receiver: Receiver, host: str, scheme: str
) -> None:
    answer = await send(STRICT, f"{scheme}://{host}:{receiver.port}/")
    assert answer.status_code is None
    assert answer.error is not None
    assert answer.error.startswith("Not sent: ")
    assert receiver.received == []


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["::1"],
        ["::ffff:10.0.0.1"],
        ["64:ff9b::a00:1"],
        ["169.254.169.254"],
        [PUBLIC, "10.0.0.1"],
        ["10.0.0.1", PUBLIC],
        [PUBLIC, PUBLIC, "fd00::1"],
        ["not an address"],
        [PUBLIC] * 17,
    ],
)
async def test_one_private_address_among_public_ones_refuses_the_name(
    monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    opened = note_sockets(monkeypatch)
    names = FakeNames(answers)
    answer = await send(STRICT, f"https://{HOST}/hooks", names=names)
    assert names.asked == [HOST]
    assert answer.error is not None
    assert answer.error.startswith("Not sent: the host has ")
    assert not any(address in answer.error for address in answers)
    assert opened == []


async def test_only_the_address_that_was_checked_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers the check with a public address and the connection with a private one."""
    opened = note_sockets(monkeypatch)
    names = FakeNames([PUBLIC], ["127.0.0.1"])
    answer = await send(STRICT, f"https://{HOST}/hooks", names=names)
    assert answer.error == "No connection: Network is unreachable."
    assert opened == [PUBLIC]
    assert names.asked == [HOST]


def note_sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that connections are tried to; none is made."""
    opened: list[str] = []

    async def refuse(
        _loop: asyncio.AbstractEventLoop, _socket: socket.socket, address: tuple[str, int]
    ) -> None:
        opened.append(address[0])
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", refuse)
    return opened


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "localhost"])
async def test_the_client_itself_refuses_what_the_url_check_would_miss(receiver: Receiver, host: str) -> None:
    """The socket and the resolver are guarded apart from the URL."""
    async with guarded_session(allow_private=False, connections_max=2) as session:
        with pytest.raises((aiohttp.ClientConnectorError, aiohttp.InvalidURL)) as caught:
            await session.post(f"http://{host}:{receiver.port}/", data=b"x")
    if isinstance(caught.value, aiohttp.ClientConnectorError):
        assert isinstance(caught.value.os_error, TargetRefused)
    assert receiver.received == []


async def test_a_literal_v6_address_works_where_allowed() -> None:
    async with running_receiver("::1") as receiver:
        answer = await send(LENIENT, f"http://[::1]:{receiver.port}/")
        assert answer == Answer(204)
        assert len(receiver.received) == 1


async def test_the_host_header_is_the_name(receiver: Receiver) -> None:
    answer = await send(LENIENT, f"http://{HOST}:{receiver.port}/x?y=1", names=FakeNames(["127.0.0.1"]))
    assert answer == Answer(204)
    assert receiver.received[0].headers["Host"] == f"{HOST}:{receiver.port}"


async def test_a_name_that_does_not_exist_is_said_so() -> None:
    class NoNames(FakeNames):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    answer = await send(LENIENT, f"http://{HOST}/", names=NoNames([]))
    assert answer == Answer(None, "The host name could not be resolved.")


@asynccontextmanager
async def tls_server() -> AsyncIterator[tuple[int, list[str | None]]]:
    """A TLS server for `shop.example`; its port, and the names that clients asked for."""
    asked: list[str | None] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)

    async def accept(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/", accept)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


async def test_tls_checks_the_name_of_the_url() -> None:
    trusting = ssl.create_default_context(cafile=TLS / "certificate.pem")
    async with tls_server() as (port, asked):
        names = FakeNames(["127.0.0.1"])
        good = await send(LENIENT, f"https://{HOST}:{port}/", names=names, tls=trusting)
        other = await send(LENIENT, f"https://other.example:{port}/", names=names, tls=trusting)
        untrusted = await send(LENIENT, f"https://{HOST}:{port}/", names=names)
    assert good == Answer(200)
    assert asked[0] == HOST
    assert other.error is not None
    assert other.error.startswith("The TLS certificate is not valid: Hostname mismatch")
    assert untrusted.error == "The TLS certificate is not valid: self-signed certificate."


async def test_plain_http_behind_https_is_said_so(receiver: Receiver) -> None:
    answer = await send(LENIENT, f"https://{HOST}:{receiver.port}/", names=FakeNames(["127.0.0.1"]))
    assert answer == Answer(None, "TLS could not be negotiated.")


async def test_secrets_are_in_no_repr() -> None:
    assert "whsec_" not in repr(delivery("https://shop.example/"))

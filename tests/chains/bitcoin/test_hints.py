"""Hints by ZMQ, from a real publisher socket (the node that runs here was built without ZMQ).

F-NODE 6: a hint makes us look, and nothing else; whatever a publisher does, nothing fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from tallystick.chains.bitcoin import hints as hints_module
from tallystick.chains.bitcoin.hints import TOPICS, Hints
from tallystick.chains.bitcoin.source import BitcoinOptions, BitcoinSource
from tallystick.chains.source import FeeSource, HintSource
from tallystick.core.errors import ConfigurationError
from tests.support.publisher import SECONDS_MAX, Publisher


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with aclosing(Publisher()) as publisher:
        yield publisher


@pytest.fixture
async def hints(publisher: Publisher) -> AsyncIterator[Hints]:
    hints = Hints([publisher.url])
    yield hints
    hints.close()


async def ends(waiting: asyncio.Task[None]) -> None:
    await asyncio.wait_for(waiting, SECONDS_MAX)


async def test_each_message_is_a_hint(publisher: Publisher, hints: Hints) -> None:
    stop = asyncio.Event()
    waiting = asyncio.create_task(hints.wait(stop))
    await publisher.heard()
    assert not waiting.done()
    for number, topic in enumerate(TOPICS):
        await publisher.publish(topic, b"\xee" * 32, number)
        await ends(waiting)
        waiting = asyncio.create_task(hints.wait(stop))
    stop.set()
    await ends(waiting)


async def test_a_flood_is_one_hint(publisher: Publisher, hints: Hints) -> None:
    """What came while we looked is thrown away with the first of it. Bug planted: one message at a time."""
    stop = asyncio.Event()
    waiting = asyncio.create_task(hints.wait(stop))
    await publisher.heard()
    for number in range(500):
        await publisher.publish(b"hashtx", b"\xee" * 32, number)
    await publisher.publish(b"hashblock", b"\xee" * 32)
    await ends(waiting)
    rounds = 0
    while True:
        waiting = asyncio.create_task(hints.wait(stop))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        if not done:
            break
        rounds += 1
    assert rounds < 50  # a few, while the flood was still on its way
    stop.set()
    await ends(waiting)


@pytest.mark.parametrize("body", [b"", b"\x00" * 9_000_000, "ü".encode() * 1_000])
async def test_whatever_is_published_nothing_fails(
    publisher: Publisher, hints: Hints, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large a message ends the connection, which is made anew in time. What has no topic of ours is not heard.

    Bug planted: no second connection; after one such message nothing was heard for ever.
    """
    stop = asyncio.Event()
    waiting = asyncio.create_task(hints.wait(stop))
    await publisher.heard()
    await publisher.publish(b"sequence", body)
    await publisher.publish(b"rawtx", body)
    if len(body) > 8_000_000:
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done
        waiting.cancel()
        monkeypatch.setattr(hints_module, "SILENCE_SECONDS_MAX", 0.0)
        waiting = asyncio.create_task(hints.wait(stop))
        await publisher.heard()
        await publisher.publish(b"hashblock", b"")
    await ends(waiting)


async def test_a_wait_can_be_cancelled_and_begun_again(publisher: Publisher, hints: Hints) -> None:
    stop = asyncio.Event()
    for _ in range(3):
        waiting = asyncio.create_task(hints.wait(stop))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    waiting = asyncio.create_task(hints.wait(stop))
    await publisher.heard()
    await publisher.publish(b"hashblock", b"\xee" * 32)
    await ends(waiting)


async def test_without_a_publisher_only_the_stop_ends_a_wait() -> None:
    stop = asyncio.Event()
    nobody, dead = Hints([]), Hints(["tcp://127.0.0.1:1"])
    waiting = [asyncio.create_task(hints.wait(stop)) for hints in (nobody, dead)]
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    assert not done
    stop.set()
    for one in waiting:
        await ends(one)
    nobody.close()
    dead.close()


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:28332", "http://127.0.0.1:1", "tcp://user:word@host:1", "tcp://a b:1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Hints([url])
    assert "word" not in str(caught.value)


async def test_the_source_passes_hints_on(publisher: Publisher) -> None:
    options = BitcoinOptions("net", "bitcoin-regtest", ("http://127.0.0.1:1",), hint_urls=(publisher.url,))
    source = BitcoinSource(options)
    assert isinstance(source, HintSource)
    assert isinstance(source, FeeSource)
    waiting = asyncio.create_task(source.hint(asyncio.Event()))
    await publisher.heard()
    await publisher.publish(b"hashblock", b"\xee" * 32)
    await ends(waiting)
    await source.close()

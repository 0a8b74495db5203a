"""Rates from several sources at once, and together with written ones.

For: the context's `rates`. Holds true: any number of callers who ask for one pair at one time make one question; an
answer is kept for a few seconds; a source that keeps failing is left alone for a while; a rate comes out of
`rates.median` or not at all. Must not: repeat a question by itself, or remember a rate beyond its seconds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final, Protocol

import structlog

from tallystick.core.errors import NoQuote, SourceError, SourceUnavailable
from tallystick.rates.median import Rules, judge
from tallystick.rates.source import PIVOTS, Answer, Rate, StaticRates

log = structlog.get_logger(__name__)

FAILURES_MAX: Final = 3
KEPT_PAIRS_MAX: Final = 1000


class PriceSource(Protocol):
    """Something that can be asked for a price: an exchange."""

    @property
    def name(self) -> str:
        """What it is called in answers."""
        ...

    async def open(self) -> None:
        """Prepare for the first question. Raises SourceError."""
        ...

    async def ask(self, base: str, quote: str) -> Answer:
        """Its price now. Raises SourceError."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """`cache_seconds`: how long a rate is used again. `seconds_max`: how long all sources get to answer a question.

    `aside_seconds`: how long a source is left alone after FAILURES_MAX failures in a row.
    """

    rules: Rules = field(default_factory=Rules)
    cache_seconds: float = 10.0
    seconds_max: float = 5.0
    aside_seconds: float = 30.0


@dataclass(slots=True)
class Aside:
    """Whether a source is left alone. Times are a monotonic clock's seconds.

    After the pause it is asked again; if it fails again it is left alone again at once.
    """

    pause_seconds: float
    failures: int = 0
    until: float = 0.0

    def is_aside(self, now: float) -> bool:
        """Whether it is to be left alone now."""
        return now < self.until

    def succeeded(self) -> None:
        """It answered: everything is forgiven."""
        self.failures, self.until = 0, 0.0

    def failed(self, now: float, wanted_seconds: int | None = None) -> bool:
        """It failed, or asked for a pause itself; answer whether it is left alone from now on."""
        self.failures += 1
        if wanted_seconds is None and self.failures < FAILURES_MAX:
            return False
        self.until = now + max(self.pause_seconds, wanted_seconds or 0)
        return True


@dataclass(frozen=True, slots=True)
class _Kept:
    until: float
    rate: Rate


def utc_now() -> datetime:
    """Our clock: aware, UTC."""
    return datetime.now(UTC)


class LiveRates:
    """The median of what the sources answer. Belongs to one event loop."""

    def __init__(
        self,
        sources: Sequence[PriceSource],
        options: LiveOptions | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._sources = tuple(sources)
        self._options = options or LiveOptions()
        self._clock = clock
        self._aside = {source.name: Aside(self._options.aside_seconds) for source in sources}
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[Rate]] = {}

    async def rate(self, base: str, quote: str) -> Rate:
        """The rate now, at most a few seconds old. Raises NoQuote, which says why of each source."""
        pair = (base, quote)
        kept = self._kept.get(pair)
        if kept is not None and asyncio.get_running_loop().time() < kept.until:
            return kept.rate
        task = self._asking.get(pair)
        if task is None:
            task = self._asking[pair] = asyncio.create_task(self._ask(base, quote), name="ask for a rate")
            task.add_done_callback(lambda done: self._asked(pair, done))
        return await asyncio.shield(task)  # who gives up waiting does not take the answer from the others

    async def open(self) -> None:
        """Prepare every source, so that the first customer need not wait. What fails now is tried again when asked."""
        found = await asyncio.gather(*(source.open() for source in self._sources), return_exceptions=True)
        for source, problem in zip(self._sources, found, strict=True):
            if isinstance(problem, SourceError):
                log.warning("exchange.not_ready", source=source.name, problem=problem.what)
            elif isinstance(problem, BaseException):
                raise problem

    async def close(self) -> None:
        """End what is under way and close every source."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for source in self._sources:
            await source.close()

    def _asked(self, pair: tuple[str, str], task: asyncio.Task[Rate]) -> None:
        self._asking.pop(pair, None)
        if task.cancelled() or task.exception() is not None:  # who waits gets it; here it is only looked at
            return
        until = asyncio.get_running_loop().time() + self._options.cache_seconds
        self._kept[pair] = _Kept(until, task.result())
        self._kept.move_to_end(pair)
        while len(self._kept) > KEPT_PAIRS_MAX:
            self._kept.popitem(last=False)

    async def _ask(self, base: str, quote: str) -> Rate:
        answers = await asyncio.gather(*(self._answer(source, base, quote) for source in self._sources))
        now = self._clock()
        judged = judge(answers, self._options.rules, now)
        if judged.rate is None:
            said = "; ".join(f"{answer.source}: {answer.problem}" for answer in judged.answers)
            raise NoQuote(
                f"No rate can be trusted for {base} in {quote} ({said}).",
                remedy="Try again in a moment; see [rates] in the configuration if this goes on.",
            )
        words = "median of " if len(judged.used) > 1 else ""
        source = words + ", ".join(answer.source for answer in judged.used)
        return Rate(base, quote, judged.rate, source, judged.answers, now)

    async def _answer(self, source: PriceSource, base: str, quote: str) -> Answer:
        """What the source says, or why it says nothing."""
        aside, time = self._aside[source.name], asyncio.get_running_loop().time
        if aside.is_aside(time()):
            return Answer(source.name, f"{base}/{quote}", problem="it failed repeatedly and is left alone")
        try:
            async with asyncio.timeout(self._options.seconds_max):
                answer = await source.ask(base, quote)
        except (SourceError, TimeoutError) as error:
            problem = error.what if isinstance(error, SourceError) else "It did not answer in time."
            wanted = error.retry_after_seconds if isinstance(error, SourceUnavailable) else None
            if aside.failed(time(), wanted):
                log.warning("exchange.left_alone", source=source.name, problem=problem)
            return Answer(source.name, f"{base}/{quote}", problem=problem)
        aside.succeeded()
        return answer


class ConfiguredRates:
    """Written rates first, because the operator's word stands; else live ones; else one of each through a pivot."""

    def __init__(self, static: StaticRates | None, live: LiveRates | None) -> None:
        self._static = static or StaticRates({})
        self._live = live

    async def rate(self, base: str, quote: str) -> Rate:
        """The rate now. Raises NoQuote."""
        try:
            return await self._static.rate(base, quote)
        except NoQuote:
            if self._live is None:
                raise
        try:
            return await self._live.rate(base, quote)
        except NoQuote:
            for pivot in PIVOTS:
                crossed = await self._crossed(self._live, base, pivot, quote)
                if crossed is not None:
                    return crossed
            raise

    async def open(self) -> None:
        """Prepare the sources for the first question."""
        if self._live is not None:
            await self._live.open()

    async def close(self) -> None:
        """Close the sources."""
        if self._live is not None:
            await self._live.close()

    async def _crossed(self, live: LiveRates, base: str, pivot: str, quote: str) -> Rate | None:
        """A written rate and a live one that meet at the pivot, whichever way round; None where they do not."""
        if pivot in (base, quote):
            return None
        for first in (True, False):
            written = self._static.written(*((base, pivot) if first else (pivot, quote)))
            if written is None:
                continue
            try:
                found = await live.rate(*((pivot, quote) if first else (base, pivot)))
            except NoQuote:
                continue
            return _product(base, quote, f"{base}/{pivot}" if first else f"{pivot}/{quote}", written, found)
        return None


def _product(base: str, quote: str, pair: str, written: Fraction, live: Rate) -> Rate:
    answers = (Answer("static", pair, written, used=True), *live.answers)
    return Rate(base, quote, written * live.value, f"static, {live.source}", answers, live.at)

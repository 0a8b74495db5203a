"""One exchange as a source of prices, through ccxt.

For: `rates.live`. Holds true: a price is read from the exchange's own text as an exact fraction, never through a float;
what comes from outside is bounded in size, time and depth; a request is sent once (asking again is the caller's). The
library is loaded in a thread when the first exchange is opened: it takes about a second and 65 MB.
Must not: judge a price (that is `rates.median`), hold a key, or call anything that is not public.

The price is the middle of the best bid and ask. Where one of them is missing, or they lie further apart than WIDE,
it is the last trade's. Its time is the exchange's own; where the exchange names none (kraken) it is the Date header of
its answer, so that a copy from somebody's cache is as old as it is; and without that, the time when we asked.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from fractions import Fraction
from itertools import accumulate
from typing import Any, ClassVar, Final, NoReturn
from urllib.parse import urlsplit

import aiohttp

from tallystick.core.errors import SourceError, SourceIncomplete, SourceUnavailable
from tallystick.rates.routes import Leg, Map
from tallystick.rates.source import Answer

TICKER_BYTES_MAX: Final = 1 << 20
MARKETS_BYTES_MAX: Final = 64 << 20
MARKETS_COUNT_MAX: Final = 50_000
MARKETS_LOAD_SECONDS_MAX: Final = 60.0
MARKETS_FRESH_SECONDS: Final = 24 * 3600.0
MARKETS_AGAIN_SECONDS: Final = 300.0
CONNECTIONS_MAX: Final = 4
WIDE: Final = Fraction(1, 20)
RETRY_AFTER_SECONDS_MAX: Final = 3600
DEPTH_MAX: Final = 64

_NUMBER: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
# A number such as 1e999999999 is ten bytes that the library would write out as a gigabyte of digits.
_BOMB: Final = re.compile(r'(?<=[\s":,\[])[-+]?[0-9.]+[eE][-+]?[0-9]{3,}(?=[\s",\]}])', re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,6}", re.ASCII)

_TEXT: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_OPENING: Final = frozenset(b"[{")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))

_answered_at: ContextVar[list[datetime]] = ContextVar("answered_at")


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """Which exchange, and how it is asked. `url` is another address of the same interface, None for the exchange's own.

    `seconds_max` bounds one request.
    """

    name: str
    map: Map = field(default_factory=Map)
    url: str | None = None
    seconds_max: float = 5.0


class Exchange:
    """An exchange by its ccxt id. Nothing is opened before it is first asked; `close` it at the end."""

    def __init__(self, options: ExchangeOptions, clock: Callable[[], datetime]) -> None:
        self.name = options.name
        self._options = options
        self._clock = clock
        self._door: _Door | None = None
        self._library: Any = None
        self._listed: frozenset[str] = frozenset()
        self._loaded_at = 0.0
        self._loading: asyncio.Task[None] | None = None

    async def ask(self, base: str, quote: str) -> Answer:
        """The exchange's price now: of the pair, its inverse, or a cross. Raises SourceError.

        An exchange that lists no way from one to the other answers so; that is no failure.
        """
        await self.open()
        route = self._options.map.route(self._listed, base, quote)
        if not route:
            return Answer(self.name, f"{base}/{quote}", problem="the exchange does not list it")
        prices = await asyncio.gather(*(self._price(leg) for leg in route))
        value = Fraction(1)
        for price, _ in prices:
            value *= price
        return Answer(self.name, " × ".join(map(str, route)), value, min(at for _, at in prices))

    async def open(self) -> None:
        """Load the list of pairs unless it is there; once for any number of callers at a time. Raises SourceError."""
        now = asyncio.get_running_loop().time()
        stale = not self._listed or now - self._loaded_at > MARKETS_FRESH_SECONDS
        if stale and (self._loading is None or self._loading.done()):
            self._loading = asyncio.create_task(self._load(), name=f"markets of {self.name}")
            self._loading.add_done_callback(_heed)
        if not self._listed and self._loading is not None:
            await asyncio.shield(self._loading)

    async def close(self) -> None:
        """Give everything back."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._door is not None:
            await self._door.close()
        if self._library is not None:
            self._library.session = None  # it warns about sessions that it was lent

    async def _load(self) -> None:
        library = self._library or await self._create()
        try:
            async with asyncio.timeout(MARKETS_LOAD_SECONDS_MAX):
                found = await library.fetch_markets()
            spot = [market for market in found if market.get("spot") and market.get("active") is not False]
            for market in spot:
                market["info"] = None  # what the exchange wrote about each pair: tens of megabytes
            if not 1 <= len(spot) <= MARKETS_COUNT_MAX:
                raise SourceIncomplete("The exchange lists no pair that can be used.", object_id=self.name)
            library.set_markets(spot)
            self._listed = frozenset(market["symbol"] for market in spot)
        except Exception as error:  # noqa: BLE001  # whatever the library raises, only this source fails
            # An old list is better than none, and not asked for again with every price.
            self._loaded_at = (
                asyncio.get_running_loop().time() - MARKETS_FRESH_SECONDS + MARKETS_AGAIN_SECONDS
            )
            _fail(self.name, error)
        self._loaded_at = asyncio.get_running_loop().time()

    async def _create(self) -> Any:
        """Our one object of the library, held away from everything but public questions through our door."""
        module = await asyncio.to_thread(importlib.import_module, "ccxt.async_support")
        self._door = _Door(self._options.seconds_max)
        library = getattr(module, self.name)(
            {
                "session": self._door,
                "enableRateLimit": False,
                "timeout": int(self._options.seconds_max * 1000),
            }
        )
        library.ssl_context = False  # the door has its own: this keeps the library from making another
        library.number = str
        library.on_json_response = _read_json
        library.has["fetchCurrencies"] = False
        kinds = library.options.get("fetchMarkets")
        if isinstance(kinds, Mapping) and "spot" in kinds.get("types", ()):
            library.options["fetchMarkets"] = {**kinds, "types": ["spot"]}
        library.options["adjustForTimeDifference"] = False
        library.options["maxRetriesOnFailure"] = 0
        if self._options.url is not None:
            library.urls["api"] = _moved(library.urls["api"], self._options.url)
        self._library = library
        return library

    async def _price(self, leg: Leg) -> tuple[Fraction, datetime]:
        """Price and time of one listed pair, turned round where the leg says so."""
        asked_at = self._clock()
        answered: list[datetime] = []
        _answered_at.set(answered)
        try:
            async with asyncio.timeout(self._options.seconds_max):
                ticker = await self._library.fetch_ticker(leg.symbol)
            price = read_price(ticker)
            own = ticker.get("timestamp")
            at = datetime.fromtimestamp(int(own) / 1000, UTC) if own else min(answered, default=asked_at)
        except Exception as error:  # noqa: BLE001  # as above: an unknown shape is a KeyError
            _fail(self.name, error)
        return (1 / price if leg.inverse else price), at


def read_price(ticker: Mapping[str, Any]) -> Fraction:
    """The price in a ticker of ccxt whose numbers are texts. Raises SourceIncomplete where it gives none."""
    bid, ask, last = (_number(ticker.get(key), key) for key in ("bid", "ask", "last"))
    if bid is not None and ask is not None and bid <= ask <= bid * (1 + WIDE):
        return (bid + ask) / 2
    if last is None:
        raise SourceIncomplete("It gave neither a bid and an ask that fit nor a last price.")
    return last


def _number(text: object, key: str) -> Fraction | None:
    """A positive number in plain digits, exactly; None where there is none."""
    if text is None:
        return None
    if not isinstance(text, str) or _NUMBER.fullmatch(text) is None:
        raise SourceIncomplete(f"Its {key} is no positive number.")
    return Fraction(text) or None


def _read_json(text: str) -> Any:
    """JSON whose numbers stay the texts that the exchange wrote. Raises SourceIncomplete."""
    if _BOMB.search(text):
        raise SourceIncomplete("It sent a number beyond all measure.")
    # The parser's own limit is the interpreter's, which others raise: then deep nesting ends the whole process.
    if _depth(text) > DEPTH_MAX:
        raise SourceIncomplete("It sent JSON that is nested too deeply.")
    try:
        return json.loads(text, parse_float=str, parse_int=str, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise SourceIncomplete("It sent no JSON that can be read.") from error


def _depth(text: str) -> int:
    """How deep the brackets outside of texts go."""
    # Without a backslash every quotation mark begins or ends a text, and splitting there is much the quickest.
    bare = _TEXT.sub("", text) if "\\" in text else "".join(text.split('"')[::2])
    brackets = bare.encode("utf-8", "replace").translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in _OPENING else -1 for bracket in brackets), default=0)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _moved(addresses: Any, url: str) -> Any:
    """The library's addresses, each with its path, at another scheme, host and port."""
    if isinstance(addresses, Mapping):
        return {key: _moved(value, url) for key, value in addresses.items()}
    if not isinstance(addresses, str):
        return addresses
    return url.rstrip("/") + urlsplit(addresses).path


class _Door:
    """All that the library can reach the world through: GET without redirects, cookies, proxies, of bounded size."""

    headers: ClassVar[Mapping[str, str]] = {"User-Agent": "tallystick", "Accept": "application/json"}

    def __init__(self, seconds_max: float) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, resolver=aiohttp.ThreadedResolver()),
            timeout=aiohttp.ClientTimeout(total=MARKETS_LOAD_SECONDS_MAX, sock_connect=seconds_max),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()

    @asynccontextmanager
    async def get(self, url: Any, *, headers: Mapping[str, str], **_unused: Any) -> AsyncIterator[_Reply]:
        """What the library calls in place of aiohttp's own. Time, proxy and body are not the library's to choose."""
        answered = _answered_at.get(None)
        bytes_max = MARKETS_BYTES_MAX if answered is None else TICKER_BYTES_MAX
        wanted = {key: value for key, value in headers.items() if key.lower() != "accept-encoding"}
        async with self._session.get(url, headers=wanted, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > bytes_max:
                    raise SourceUnavailable(f"Its answer is larger than {bytes_max} bytes.")
            if answered is not None:
                answered.extend(_date_of(response.headers))
            if response.status == 429:
                raise _slow_down(response.headers)
            yield _Reply(response.status, str(response.reason), response.headers, bytes(body))


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer that was read completely, with the parts of aiohttp's that the library looks at."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes

    async def text(self, errors: str = "strict") -> str:
        return self.content.decode("utf-8", errors)


def _slow_down(headers: Mapping[str, str]) -> SourceUnavailable:
    wanted = headers.get("Retry-After", "")
    seconds = min(int(wanted), RETRY_AFTER_SECONDS_MAX) if _SECONDS.fullmatch(wanted) else None
    return SourceUnavailable("It asks to be asked less often (429).", retry_after_seconds=seconds)


def _date_of(headers: Mapping[str, str]) -> list[datetime]:
    """The time in the Date header (RFC 9110, 6.6.1), if it can be read."""
    try:
        found = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return []
    return [found if found.tzinfo is not None else found.replace(tzinfo=UTC)]


def _heed(task: asyncio.Task[None]) -> None:
    """Look at what a task raised, so that nobody complains that no one did: who waits for it gets it, too."""
    if not task.cancelled():
        task.exception()


def _fail(name: str, error: Exception) -> NoReturn:
    """Raise the error as one of ours. Nothing that the exchange wrote is repeated."""
    from ccxt.base import errors as theirs

    if isinstance(error, SourceError):
        error.object_id = name
        raise error
    if isinstance(error, TimeoutError | theirs.RequestTimeout):
        raise SourceUnavailable("It did not answer in time.", object_id=name) from error
    if isinstance(error, theirs.DDoSProtection | theirs.RateLimitExceeded):
        raise SourceUnavailable("It asks to be asked less often.", object_id=name) from error
    if isinstance(error, theirs.NetworkError | aiohttp.ClientError | OSError):
        raise SourceUnavailable("It is not available.", object_id=name) from error
    if isinstance(error, theirs.BaseError):
        raise SourceUnavailable("It answered with an error.", object_id=name) from error
    raise SourceIncomplete("Its answer cannot be read.", object_id=name) from error

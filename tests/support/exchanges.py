"""Local servers that speak like kraken, coinbase and binance, for tests of rates.

For: a market whose prices, ages and troubles a test chooses. Holds true: lists of pairs and tickers have the fields and
the shapes (texts, lists, odd names such as XETHZUSD) of the real public interfaces; what is asked is counted.
Must not: use Tallystick's own code.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from aiohttp import web

KRAKEN_NAMES = {"ETH": "XETH", "BTC": "XXBT", "USD": "ZUSD", "EUR": "ZEUR"}
BOMB = "1e999999999"


@dataclass(slots=True)
class Quote:
    """What a pair trades at: bid, ask and last as texts, and how old that is."""

    bid: str
    ask: str
    last: str
    age_seconds: float = 0.0


@dataclass(slots=True)
class Market:
    """A server of one style: kraken, coinbase or binance.

    `trouble` is what it does to tickers: None, "error" (HTTP 200 with an error body), "html", "429", "500", "slow",
    "huge", "redirect", "garbage", "deep", "no_json". With `trouble_everywhere` it does so to its list of pairs, too.
    """

    style: str
    quotes: dict[str, Quote] = field(default_factory=dict)
    trouble: str | None = None
    trouble_everywhere: bool = False
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def set(
        self, pair: str, bid: str, ask: str | None = None, last: str | None = None, age: float = 0.0
    ) -> None:
        """Trade a pair ("ETH/USD") at these prices."""
        self.quotes[pair] = Quote(
            bid, ask if ask is not None else bid, last if last is not None else bid, age
        )

    @property
    def tickers_asked(self) -> int:
        """How many tickers were asked for."""
        return self.asked["ticker"]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer any of the paths."""
        path = request.path
        lists = path in ("/0/public/AssetPairs", "/api/v3/exchangeInfo", "/api/v3/brokerage/market/products")
        self.asked["list" if lists else "ticker"] += 1
        if self.trouble is not None and (self.trouble_everywhere or not lists):
            return await self._troubled()
        if lists:
            future = request.query.get("product_type") == "FUTURE"
            return web.json_response({"products": []} if future else self._list())
        return self._ticker(request)

    async def _troubled(self) -> web.StreamResponse:
        match self.trouble:
            case "error":
                bodies: dict[str, Any] = {
                    "kraken": {"error": ["EGeneral:Internal error"]},
                    "coinbase": {"error": "INTERNAL", "error_details": "something", "message": "something"},
                    "binance": {
                        "code": -1000,
                        "msg": "An unknown error occurred while processing the request.",
                    },
                }
                return web.json_response(bodies[self.style])
            case "html":
                return web.Response(
                    text="<html><body>Checking your browser</body></html>", content_type="text/html"
                )
            case "429":
                return web.Response(status=429, text="slow down", headers={"Retry-After": "7"})
            case "500":
                return web.Response(status=503, text="<html>busy</html>", content_type="text/html")
            case "slow":
                await self.release.wait()
                return web.Response(text="{}")
            case "huge":
                return web.Response(
                    body=b'{"result": "' + b"0" * (3 << 20) + b'"}', content_type="application/json"
                )
            case "redirect":
                return web.Response(status=302, headers={"Location": self.url + "/elsewhere"})
            case "deep":
                return web.Response(text="[" * 200_000, content_type="application/json")
            case "garbage":
                return web.json_response({"result": {"XETHZUSD": 7}, "trades": {"a": 1}, "bidPrice": [1]})
            case _:
                return web.Response(text="{not json", content_type="application/json")

    def _list(self) -> Any:
        pairs = [pair.split("/") for pair in self.quotes]
        if self.style == "kraken":
            return {"error": [], "result": {_kraken_id(b, q): _kraken_pair(b, q) for b, q in pairs}}
        if self.style == "coinbase":
            return {"products": [_coinbase_product(b, q) for b, q in pairs], "num_products": len(pairs)}
        return {"timezone": "UTC", "serverTime": 1, "symbols": [_binance_symbol(b, q) for b, q in pairs]}

    def _ticker(self, request: web.Request) -> web.Response:
        if self.style == "kraken":
            named = {_kraken_id(*pair.split("/")): pair for pair in self.quotes}
            key = request.query["pair"]
            quote = self.quotes[named[key]]
            at = datetime.now(UTC) - timedelta(seconds=quote.age_seconds)
            headers = {"Date": format_datetime(at, usegmt=True)}  # the only time that kraken gives
            return web.json_response({"error": [], "result": {key: _kraken_ticker(quote)}}, headers=headers)
        if self.style == "coinbase":
            product = request.path.split("/")[-2]
            return web.json_response(_coinbase_ticker(product, self.quotes[product.replace("-", "/")]))
        named = {pair.replace("/", ""): pair for pair in self.quotes}
        symbol = request.query["symbol"]
        return web.json_response(_binance_ticker(symbol, self.quotes[named[symbol]]))


def _kraken_id(base: str, quote: str) -> str:
    return KRAKEN_NAMES.get(base, base) + KRAKEN_NAMES.get(quote, quote)


def _kraken_pair(base: str, quote: str) -> dict[str, Any]:
    return {
        "altname": base + quote,
        "wsname": f"{base}/{quote}",
        "aclass_base": "currency",
        "base": KRAKEN_NAMES.get(base, base),
        "aclass_quote": "currency",
        "quote": KRAKEN_NAMES.get(quote, quote),
        "lot": "unit",
        "cost_decimals": 5,
        "pair_decimals": 2,
        "lot_decimals": 8,
        "lot_multiplier": 1,
        "leverage_buy": [2, 3],
        "leverage_sell": [2, 3],
        "fees": [[0, 0.4], [10000, 0.35]],
        "fees_maker": [[0, 0.25], [10000, 0.2]],
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": "0.002",
        "costmin": "0.5",
        "tick_size": "0.01",
        "status": "online",
    }


def _kraken_ticker(quote: Quote) -> dict[str, Any]:
    return {
        "a": [quote.ask, "1", "1.000"],
        "b": [quote.bid, "2", "2.000"],
        "c": [quote.last, "0.04408910"],
        "v": ["4147.94474901", "8896.96086304"],
        "p": [quote.last, quote.last],
        "t": [3907, 10056],
        "l": [quote.last, quote.last],
        "h": [quote.last, quote.last],
        "o": quote.last,
    }


def _coinbase_product(base: str, quote: str) -> dict[str, Any]:
    return {
        "product_id": f"{base}-{quote}",
        "price": "1",
        "base_increment": "0.00000001",
        "quote_increment": "0.01",
        "quote_min_size": "1",
        "quote_max_size": "150000000",
        "base_min_size": "0.00000001",
        "base_max_size": "3400",
        "status": "online",
        "trading_disabled": False,
        "product_type": "SPOT",
        "quote_currency_id": quote,
        "base_currency_id": base,
        "alias": "",
        "alias_to": [],
        "view_only": False,
        "price_increment": "0.01",
    }


def _coinbase_ticker(product: str, quote: Quote) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(seconds=quote.age_seconds)
    trade = {
        "trade_id": "518078013",
        "product_id": product,
        "price": quote.last,
        "size": "0.00659179",
        "time": at.isoformat().replace("+00:00", "Z"),
        "side": "BUY",
        "bid": "",
        "ask": "",
    }
    return {"trades": [trade], "best_bid": quote.bid, "best_ask": quote.ask}


def _binance_symbol(base: str, quote: str) -> dict[str, Any]:
    return {
        "symbol": base + quote,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "minQty": "0.0001", "maxQty": "9000.0", "stepSize": "0.0001"},
        ],
        "permissions": ["SPOT"],
    }


def _binance_ticker(symbol: str, quote: Quote) -> dict[str, Any]:
    at = int((datetime.now(UTC).timestamp() - quote.age_seconds) * 1000)
    return {
        "symbol": symbol,
        "priceChange": "1.0",
        "priceChangePercent": "0.159",
        "weightedAvgPrice": quote.last,
        "prevClosePrice": quote.last,
        "lastPrice": quote.last,
        "lastQty": "0.00731000",
        "bidPrice": quote.bid,
        "bidQty": "7.15931000",
        "askPrice": quote.ask,
        "askQty": "0.09592000",
        "openPrice": quote.last,
        "highPrice": quote.last,
        "lowPrice": quote.last,
        "volume": "14741.41491000",
        "quoteVolume": "1744744445.80640740",
        "openTime": at - 86_400_000,
        "closeTime": at,
        "firstId": 5116031635,
        "lastId": 5117964946,
        "count": 1933312,
    }


@contextlib.asynccontextmanager
async def open_market(style: str) -> AsyncIterator[Market]:
    """A server of this style on a free port, trading ETH at 2500 dollars (binance: in USDT) unless told otherwise."""
    market = Market(style)
    market.set("ETH/USDT" if style == "binance" else "ETH/USD", "2499.00", "2501.00", "2500.00")
    application = web.Application()
    application.router.add_get("/{path:.*}", market.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    market.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield market
    finally:
        market.release.set()
        await runner.cleanup()

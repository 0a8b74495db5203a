"""Quoting without a database: what an invoice offers, and how much of it at most."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import pytest

from tallystick.core.errors import InvalidInput
from tallystick.core.money import Asset, Price
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context
from tallystick.services.quoting import OPTIONS_MAX, quote, resolve_accepted
from tests.support.stand import evm_network


def offering(tokens: int) -> Context:
    """A configuration with a coin and so many tokens at par with the dollar. Nothing here asks the database."""
    assets = tuple(Asset("local", f"T{number}", 6, f"0x{number:040x}") for number in range(1, tokens + 1))
    network = replace(
        evm_network("local", 1), tokens=assets, pegs=dict.fromkeys((one.key for one in assets), "USD")
    )
    return Context(
        database=cast("Any", None),
        networks={"local": network},
        rates=StaticRates({"ETH/USD": Fraction(2500)}),
        public_url="http://127.0.0.1",
    )


async def test_what_nobody_named_is_limited_like_what_was_named() -> None:
    """Every option costs rows, addresses and a place on the page: a long configuration is no way around the limit.

    Bug planted: only named assets counted; an invoice offers, and issues addresses for, all 33.
    """
    price = Price(500, "USD", 2)
    enough = offering(OPTIONS_MAX - 1)
    assert (
        len(await quote(enough, price, resolve_accepted(enough, None, {"evm"}), asked=False)) == OPTIONS_MAX
    )
    ctx = offering(OPTIONS_MAX)
    with pytest.raises(InvalidInput) as refused:
        await quote(ctx, price, resolve_accepted(ctx, None, {"evm"}), asked=False)
    assert refused.value.problems[0].pointer == "/accepted"

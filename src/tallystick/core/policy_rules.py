"""The rules of a confirmation policy, as a merchant writes them: their parts, their limits, what is wrong with them.

For: `core.policy`, which chooses among them, and whoever takes new ones in. Holds true: rules that passed `validate`
can be carried out on every network they may meet; every wrong field is named by its JSON pointer.
Must not: choose a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from tallystick.core.chain import RISKS, Finality, Requirement, Trait
from tallystick.core.errors import FieldProblem, InvalidInput
from tallystick.core.invoice import Tolerance
from tallystick.core.money import fiat_decimals, parse_decimal
from tallystick.core.network import Network

RULES_MAX: Final = 100
NAME_LENGTH_MAX: Final = 64
NOTE_LENGTH_MAX: Final = 500
CONFIRMATIONS_MAX: Final = 10_000
UNDER_BPS_MAX: Final = 9_999
OVER_BPS_MAX: Final = 100_000
CURRENCIES_MAX: Final = 10
PROBLEMS_MAX: Final = 20

NETWORK_DEFAULT: Final = "network default"
"""The name under which a network's own requirement closes every list. No rule may have it."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """When a rule matches: everything that is given must hold, None asks for nothing.

    `amount_gte` and `amount_lt` are plain decimal strings: from this amount (included) up to that one (excluded), in
    whole units of `amount_currency`, or of the invoice's own currency where that is None.
    """

    network: str | None = None
    asset: str | None = None
    product_type: str | None = None
    amount_gte: str | None = None
    amount_lt: str | None = None
    amount_currency: str | None = None

    @property
    def has_band(self) -> bool:
        """Whether the amount matters."""
        return self.amount_gte is not None or self.amount_lt is not None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `confirmations` is given for depth, and None for `safe` and `finalized`.

    `zero_conf_accepts` are risks with which a sighting counts all the same.
    """

    name: str
    conditions: Conditions
    finality: Finality
    confirmations: int | None
    zero_conf: bool = False
    tolerance: Tolerance = field(default_factory=Tolerance)
    zero_conf_accepts: frozenset[Trait] = frozenset()

    @property
    def requirement(self) -> Requirement:
        """What the rule asks of a payment."""
        return Requirement(self.finality, self.confirmations or 1, self.zero_conf, self.zero_conf_accepts)


@dataclass(frozen=True, slots=True)
class Policy:
    """A merchant's rules in order, as of `version` (1, 2, …). Version 0: there never were any."""

    version: int = 0
    rules: tuple[Rule, ...] = ()

    def rule(self, name: str) -> Rule | None:
        """The rule of that name."""
        return next((rule for rule in self.rules if rule.name == name), None)


def fits_place(conditions: Conditions, network: str, asset: str) -> bool:
    """Whether the conditions allow this asset on this network."""
    return conditions.network in (None, network) and conditions.asset in (None, asset)


def listed(words: Sequence[str]) -> str:
    """Words with commas, and an "and" before the last."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def validate(rules: Sequence[Rule], networks: Mapping[str, Network]) -> None:
    """Check rules that somebody wants to put. `networks` are those configured, by name.

    Raises InvalidInput that names every wrong field (at most 20) by its JSON pointer, such as
    /rules/3/require/confirmations.
    """
    if len(rules) > RULES_MAX:
        raise InvalidInput.at("/rules", f"has {len(rules)} rules; at most {RULES_MAX} are possible")
    problems: list[FieldProblem] = []
    seen: dict[str, int] = {}
    currencies: set[str] = set()
    for position, rule in enumerate(rules):
        place = f"/rules/{position}"

        def add(pointer: str, detail: str, place: str = place) -> None:
            problems.append(FieldProblem(place + pointer, detail))

        _check_name(rule.name, seen.setdefault(rule.name, position), position, add)
        _check_conditions(rule.conditions, networks, add)
        _check_requirement(rule, networks, add)
        _check_tolerance(rule.tolerance, add)
        if rule.conditions.amount_currency is not None:
            currencies.add(rule.conditions.amount_currency)
            if len(currencies) > CURRENCIES_MAX:
                add(
                    "/match/amount_currency",
                    f"is one more than the {CURRENCIES_MAX} currencies that rules may name",
                )
    if problems:
        raise InvalidInput("The rules cannot be used as written.", problems=tuple(problems[:PROBLEMS_MAX]))


_Add = Callable[[str, str], None]


def _check_name(name: str, first: int, position: int, add: _Add) -> None:
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.isprintable() or name != name.strip():
        add("/name", f"must be 1 to {NAME_LENGTH_MAX} printable characters without spaces around them")
    elif name.casefold() == NETWORK_DEFAULT:
        add("/name", "is the name of the networks' own requirement")
    elif first != position:
        add("/name", f"is the name of rule {first + 1} already")


def _check_conditions(conditions: Conditions, networks: Mapping[str, Network], add: _Add) -> None:
    network = None if conditions.network is None else networks.get(conditions.network)
    if conditions.network is not None and network is None:
        add("/match/network", "is not a network configured here")
    elif conditions.asset is not None:
        among = networks.values() if network is None else (network,)
        if all(one.asset_by_symbol(conditions.asset) is None for one in among):
            where = "any network" if network is None else network.name
            add("/match/asset", f"is not an asset configured on {where}")
    bounds: list[Fraction | None] = []
    for key, text in (("amount_gte", conditions.amount_gte), ("amount_lt", conditions.amount_lt)):
        try:
            bounds.append(None if text is None else parse_decimal(text))
        except InvalidInput as problem:
            add(f"/match/{key}", problem.what)
            bounds.append(None)
    low, high = bounds
    if high is not None and high <= (low or 0):
        add("/match/amount_lt", "must be more than amount_gte" if low else "must be more than zero")
    if conditions.amount_currency is not None:
        _check_currency(conditions, networks, add)


def _check_currency(conditions: Conditions, networks: Mapping[str, Network], add: _Add) -> None:
    currency = str(conditions.amount_currency)
    known = fiat_decimals(currency) is not None or any(
        network.asset_by_symbol(currency) is not None for network in networks.values()
    )
    if not known:
        add("/match/amount_currency", "is neither an ISO 4217 currency nor a configured asset")
    elif not conditions.has_band:
        add("/match/amount_currency", "has no meaning without amount_gte or amount_lt")


def _check_requirement(rule: Rule, networks: Mapping[str, Network], add: _Add) -> None:
    if rule.finality is Finality.DEPTH and rule.confirmations is None:
        add("/require/confirmations", 'is required where finality is "depth"')
    if rule.confirmations is not None and not 1 <= rule.confirmations <= CONFIRMATIONS_MAX:
        add("/require/confirmations", f"must lie between 1 and {CONFIRMATIONS_MAX}")
    if rule.zero_conf_accepts and not rule.zero_conf:
        add("/zero_conf_accepts", "has no meaning without zero_conf")
    if not rule.zero_conf_accepts <= RISKS:
        add("/zero_conf_accepts", f"can name {listed(sorted(RISKS))} only")
    if rule.finality is Finality.DEPTH:
        return
    blind = [
        network.name
        for network in networks.values()
        if not network.finality_tags
        and any(fits_place(rule.conditions, network.name, asset.symbol) for asset in network.assets)
    ]
    if blind:
        add(
            "/require/finality",
            f'cannot be "{rule.finality}": {listed(blind[:5])} names no such blocks; use "depth", '
            "or name another network in match",
        )


def _check_tolerance(tolerance: Tolerance, add: _Add) -> None:
    for key, value, most in (
        ("under_bps", tolerance.under_bps, UNDER_BPS_MAX),
        ("over_bps", tolerance.over_bps, OVER_BPS_MAX),
    ):
        if not 0 <= value <= most:
            add(f"/tolerance/{key}", f"must lie between 0 and {most}")

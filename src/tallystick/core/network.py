"""A network as configured: which chain it must be, which assets count there, and when a payment is confirmed.

For: matching observed transfers to assets, quoting, requirements. Holds true: an asset is the native coin or a token
bound to its contract; two tokens of one network never share a contract or a symbol.
Must not: know URLs, credentials or how a node is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tallystick.core.chain import Finality, Requirement
from tallystick.core.money import Asset

_OUTPUT_FAMILIES: Final = frozenset({"bitcoin", "litecoin"})


@dataclass(frozen=True, slots=True)
class Network:
    """One configured network.

    `family` names the kind of addresses ("evm"), `chain` the chain in the family's terms (EVM: the decimal chain id).
    `pegs` maps an asset key to the currency it is priced at par with, where the configuration says so. `safety_depth`
    is in blocks: a deeper reorganisation halts crediting. `finality_tags` is whether the network says which of its
    blocks are safe and finalized. `loose_times`: a miner may date a block ahead (Bitcoin's family: by up to two
    hours), so that its time is believed only up to our own clock. `zero_conf_limit` is in base units of the native
    coin: above it, and in tokens, no payment counts at sight, unless the rule that lets it names an amount of its
    own; None: no limit. `fee_rate_default` is in base units per 1,000 virtual bytes, for payments made while no node
    says a better one; None where no payments are made up here. `has_accounts` is whether its nodes say what an
    address held at a block, `tells_native` whether payments in its native coin are seen: where not, the coin cannot
    be asked for.
    """

    name: str
    family: str
    chain: str
    native: Asset
    tokens: tuple[Asset, ...] = ()
    requirement: Requirement = field(default_factory=lambda: Requirement(Finality.DEPTH, 12))
    safety_depth: int = 64
    pegs: dict[str, str] = field(default_factory=dict)
    finality_tags: bool = True
    loose_times: bool = False
    zero_conf_limit: int | None = None
    fee_rate_default: int | None = None
    has_accounts: bool = True
    tells_native: bool = True

    @property
    def shows_risks(self) -> bool:
        """Whether its nodes say which sightings can be replaced or rest on others: chains of outputs do."""
        return self.family in _OUTPUT_FAMILIES

    @property
    def assets(self) -> tuple[Asset, ...]:
        """All assets that count on this network, the native coin first."""
        return (self.native, *self.tokens) if self.tells_native else self.tokens

    def asset_by_symbol(self, symbol: str) -> Asset | None:
        """The configured asset of that symbol. For requests; never for judging what arrived."""
        return next((asset for asset in self.assets if asset.symbol == symbol), None)

    def asset_by_contract(self, contract: str | None) -> Asset | None:
        """The configured asset bound to `contract` (normal form), the native coin for None, else None."""
        if contract is None:
            return self.native
        return next((asset for asset in self.tokens if asset.contract == contract), None)

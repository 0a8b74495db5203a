"""The chains of Bitcoin's family: how each writes addresses and keys.

For: reading and showing addresses, the configuration, and sources. Holds true: everything here is a constant of the
chains' own software (chainparams of Bitcoin Core and Litecoin Core) or of SLIP-132.
Must not: compute anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class ChainForms:
    """How one chain writes addresses.

    `p2pkh` and `p2sh` are base58 version bytes, `p2sh_old` one that is still read but no longer written. `hrp` is the
    readable part of bech32 addresses (BIP173), `mweb_hrp` that of Litecoin's MWEB addresses. `title` is what a
    sentence calls the chain, `label` what customers are shown; `worthless` says that it is a test network.
    """

    name: str
    family: str
    title: str
    p2pkh: int
    p2sh: int
    hrp: str
    worthless: bool
    label: str
    p2sh_old: int | None = None
    mweb_hrp: str | None = None


_CHAINS: Final = (
    ChainForms("bitcoin", "bitcoin", "Bitcoin", 0x00, 0x05, "bc", worthless=False, label="Bitcoin"),
    ChainForms(
        "bitcoin-testnet4", "bitcoin", "Bitcoin's testnet4", 0x6F, 0xC4, "tb",
        worthless=True, label="Bitcoin testnet4 (test network)",
    ),
    ChainForms(
        "bitcoin-signet", "bitcoin", "Bitcoin's signet", 0x6F, 0xC4, "tb",
        worthless=True, label="Bitcoin signet (test network)",
    ),
    ChainForms(
        "bitcoin-regtest", "bitcoin", "a Bitcoin regtest chain", 0x6F, 0xC4, "bcrt",
        worthless=True, label="Bitcoin regtest (test network)",
    ),
    ChainForms(
        "litecoin", "litecoin", "Litecoin", 0x30, 0x32, "ltc",
        worthless=False, label="Litecoin", p2sh_old=0x05, mweb_hrp="ltcmweb",
    ),
    ChainForms(
        "litecoin-testnet", "litecoin", "Litecoin's testnet", 0x6F, 0x3A, "tltc",
        worthless=True, label="Litecoin testnet (test network)", p2sh_old=0xC4, mweb_hrp="tmweb",
    ),
    ChainForms(
        "litecoin-regtest", "litecoin", "a Litecoin regtest chain", 0x6F, 0x3A, "rltc",
        worthless=True, label="Litecoin regtest (test network)", p2sh_old=0xC4, mweb_hrp="tmweb",
    ),
)  # fmt: skip

CHAINS: Final[Mapping[str, ChainForms]] = MappingProxyType({chain.name: chain for chain in _CHAINS})
"""Every chain of the family by its name in the configuration."""

FAMILY_TITLES: Final[Mapping[str, str]] = MappingProxyType({"bitcoin": "Bitcoin", "litecoin": "Litecoin"})

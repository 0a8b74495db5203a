"""TRON as a `chains.families.Family`.

For: registering it there. Holds true: an xpub at m/44'/195'/account' gives the wallet's own addresses; one at an
Ethereum path gives addresses whose owner can spend as well, but not with a TRON wallet's usual settings.
Must not: ask a node anything.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from tallystick.chains.evm.addresses import EvmAccountKey
from tallystick.chains.evm.addresses import normalize as evm_normalize
from tallystick.chains.tron import addresses
from tallystick.chains.tron.chains import CHAIN_IDS
from tallystick.chains.tron.payment_uri import payment_uri, unsigned_transaction
from tallystick.core.money import Asset
from tallystick.core.network import Network

# Reading an account key costs more than deriving an address from it; a shop uses the same few keys all day.
_key: Final = lru_cache(maxsize=1024)(addresses.parse_account_key)

# Names that customers know, by chain id.
_TITLES: Final = {
    CHAIN_IDS["tron"]: "TRON",
    CHAIN_IDS["tron-nile"]: "TRON Nile (test network)",
    CHAIN_IDS["tron-shasta"]: "TRON Shasta (test network)",
}


class Tron:
    """TRON and its test networks: one key and one address space for all, so that no answer depends on the network."""

    # ruff: noqa: ARG002  # one signature for all families

    kind = "tron"

    def chain_id(self, network: Network) -> int | None:
        """See Family.chain_id."""
        return int(network.chain)

    def title(self, network: Network) -> str | None:
        """See Family.title."""
        return _TITLES.get(int(network.chain))

    def parse_account_key(self, text: str, *, pointer: str = "/account_key") -> EvmAccountKey:
        """See Family.parse_account_key."""
        return addresses.parse_account_key(text, pointer=pointer)

    def suits(self, account_key: str, network: Network) -> bool:
        """See Family.suits. Every network of the family uses the same keys."""
        return True

    def derive(self, account_key: str, index: int) -> str:
        """See Family.derive. BIP32 path 0/index below the account key."""
        return evm_normalize(_key(account_key).derive(index))

    def derivation_path(self, account_key: str, index: int) -> str:
        """See Family.derivation_path."""
        return f"0/{index}"

    def normalize(self, address: str, network: Network | None) -> str:
        """See Family.normalize."""
        return addresses.normalize(address)

    def display(self, address: str, network: Network | None) -> str:
        """See Family.display. Base58check, for contracts too."""
        return addresses.display(address)

    def payment_uri(self, network: Network, asset: Asset, address: str, amount: int) -> str:
        """See Family.payment_uri. What TRON wallets read is told in `payment_uri`."""
        return payment_uri(to=address, amount=amount, contract=asset.contract)

    def qr_text(self, uri: str, address: str) -> str:
        """See Family.qr_text. The bare address: `payment_uri` says why."""
        return address

    def check_destination(self, address: str, network: Network) -> str:
        """See Family.check_destination."""
        return addresses.check_destination(address)

    def has_checksum(self, address: str) -> bool:
        """See Family.has_checksum. Base58check has one, hex has none."""
        return address == addresses.display(addresses.normalize(address))

    def normalize_tx_hash(self, text: str) -> str:
        """See Family.normalize_tx_hash."""
        return addresses.normalize_tx_hash(text)

    def unsigned_transaction(
        self, network: Network, asset: Asset, address: str, amount: int
    ) -> dict[str, Any] | None:
        """See Family.unsigned_transaction. Its fields are those of the node's own interface."""
        return unsigned_transaction(
            chain_id=int(network.chain), to=address, amount=amount, contract=asset.contract
        )

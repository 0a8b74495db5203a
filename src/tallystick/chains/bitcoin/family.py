"""Bitcoin and Litecoin as families of networks: what `chains.families` asks of each.

Holds true: the normal form of an address is its output script in hex. Must not: ask a node.
"""
# ruff: noqa: ARG002  # one signature for all families

from __future__ import annotations

from typing import Any

from tallystick.chains.bitcoin import addresses
from tallystick.chains.bitcoin.chains import CHAINS
from tallystick.chains.bitcoin.descriptors import BitcoinAccountKey, read_account_key
from tallystick.chains.bitcoin.payment_uri import payment_uri
from tallystick.core.money import Asset
from tallystick.core.network import Network


class BitcoinFamily:
    """Bitcoin or Litecoin, with all its chains; `name` is the family's. See `chains.families.Family`."""

    kind = "bitcoin"

    def __init__(self, name: str) -> None:
        self._name = name

    def chain_id(self, network: Network) -> int | None:
        """See Family.chain_id. Chains have names."""
        return None

    def title(self, network: Network) -> str | None:
        """See Family.title."""
        return CHAINS[network.chain].label

    def parse_account_key(self, text: str, *, pointer: str = "/account_key") -> BitcoinAccountKey:
        """See Family.parse_account_key."""
        return BitcoinAccountKey.parse(text, self._name, pointer=pointer)

    def suits(self, account_key: str, network: Network) -> bool:
        """See Family.suits. Keys written for the main network serve test networks as well."""
        return not read_account_key(account_key, self._name).worthless or CHAINS[network.chain].worthless

    def derive(self, account_key: str, index: int) -> str:
        """See Family.derive."""
        return read_account_key(account_key, self._name).script(index)

    def derivation_path(self, account_key: str, index: int) -> str:
        """See Family.derivation_path."""
        return read_account_key(account_key, self._name).path(index)

    def normalize(self, address: str, network: Network | None) -> str:
        """See Family.normalize."""
        return addresses.normalize(address, self._name, None if network is None else network.chain)

    def display(self, address: str, network: Network | None) -> str:
        """See Family.display. Without a network the script itself: each chain writes it otherwise."""
        return addresses.display(address, None if network is None else network.chain)

    def payment_uri(self, network: Network, asset: Asset, address: str, amount: int) -> str:
        """See Family.payment_uri. BIP21."""
        return payment_uri(self._name, self.display(address, network), amount)

    def qr_text(self, uri: str, address: str) -> str:
        """See Family.qr_text."""
        return uri

    def check_destination(self, address: str, network: Network) -> str:
        """See Family.check_destination."""
        return addresses.check_destination(address, self._name, network.chain)

    def has_checksum(self, address: str) -> bool:
        """See Family.has_checksum. All have one."""
        return True

    def normalize_tx_hash(self, text: str) -> str:
        """See Family.normalize_tx_hash."""
        return addresses.normalize_tx_hash(text)

    def unsigned_transaction(
        self, network: Network, asset: Asset, address: str, amount: int
    ) -> dict[str, Any] | None:
        """None: what can be signed needs outputs to spend, so it is a PSBT (`chains.bitcoin.psbt`)."""
        return None

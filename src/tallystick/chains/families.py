"""What differs between network families when an address is issued and shown, behind one protocol.

For: registering wallets, issuing and presenting payment options, and refunds. Holds true: addresses are compared in
normal form only and shown in display form only. Must not: ask a node anything; that is each family's source.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

from tallystick.chains.bitcoin.family import BitcoinFamily
from tallystick.chains.evm import addresses as evm_addresses
from tallystick.chains.evm.payment_uri import payment_uri as evm_payment_uri
from tallystick.chains.evm.payment_uri import unsigned_transaction as evm_unsigned_transaction
from tallystick.chains.tron.family import Tron
from tallystick.core.money import Asset
from tallystick.core.network import Network


class AccountKey(Protocol):
    """A merchant's public key as far as registering it goes."""

    @property
    def fingerprint(self) -> str:
        """Identity of the public key in hex, whatever prefix or form it is written in: one counter of addresses."""
        ...


class Family(Protocol):
    """Addresses of one network family.

    Addresses and contracts go in and out in normal form, the same on every network of the family, unless said
    otherwise. `network` None means one that is no longer configured, or any: display then needs no network or shows
    the normal form, and normalize takes the forms of every network of the family.
    """

    @property
    def kind(self) -> str:
        """The configuration's word for networks of this family."""
        ...

    def chain_id(self, network: Network) -> int | None:
        """The number by which wallets and nodes know the chain; None where chains have names only."""
        ...

    def title(self, network: Network) -> str | None:
        """What customers call the network; None for one that is not widely known."""
        ...

    def parse_account_key(self, text: str, *, pointer: str = "/account_key") -> AccountKey:
        """Read a public key somebody typed. Raises InvalidInput at `pointer` that repeats nothing of a private key."""
        ...

    def suits(self, account_key: str, network: Network) -> bool:
        """Whether addresses of the key may be issued there: a test network's key is not for real money."""
        ...

    def derive(self, account_key: str, index: int) -> str:
        """The address of external child `index` below the account's public key, in normal form."""
        ...

    def derivation_path(self, account_key: str, index: int) -> str:
        """Where the owner's wallet finds that child, below the key as registered: "0/7"."""
        ...

    def normalize(self, address: str, network: Network | None) -> str:
        """The normal form of an address somebody typed. Raises InvalidInput, also for another network's address."""
        ...

    def display(self, address: str, network: Network | None) -> str:
        """How people write the address or contract there (EVM: EIP-55)."""
        ...

    def payment_uri(self, network: Network, asset: Asset, address: str, amount: int) -> str:
        """What wallets open. `address` in normal form, `amount` in base units."""
        ...

    def qr_text(self, uri: str, address: str) -> str:
        """What a QR code holds so that most wallets read it: the link, or the address as people write it."""
        ...

    def check_destination(self, address: str, network: Network) -> str:
        """The normal form of a typed address that money may be sent to there.

        Raises InvalidInput, also where the money would be lost.
        """
        ...

    def has_checksum(self, address: str) -> bool:
        """Whether a typed address, which is one, would betray a typing error."""
        ...

    def normalize_tx_hash(self, text: str) -> str:
        """The normal form of a transaction's hash somebody typed. Raises InvalidInput."""
        ...

    def unsigned_transaction(
        self, network: Network, asset: Asset, address: str, amount: int
    ) -> dict[str, Any] | None:
        """The transaction that a wallet elsewhere completes and signs; None where wallets take the link only."""
        ...


# Reading an account key costs more than deriving an address from it; a shop uses the same few keys all day.
_evm_key: Final = lru_cache(maxsize=1024)(evm_addresses.EvmAccountKey.parse)


# Names that customers know, by chain id.
_EVM_TITLES: Final[Mapping[str, str]] = {
    "1": "Ethereum",
    "10": "OP Mainnet",
    "56": "BNB Smart Chain",
    "100": "Gnosis",
    "137": "Polygon",
    "8453": "Base",
    "42161": "Arbitrum One",
    "43114": "Avalanche C-Chain",
    "11155111": "Sepolia (test network)",
}


class Evm:
    """Ethereum and its kin: one key and one address space for every chain, so that no answer depends on the network."""

    # ruff: noqa: ARG002  # one signature for all families

    kind = "evm"

    def chain_id(self, network: Network) -> int | None:
        """See Family.chain_id. EIP-155."""
        return int(network.chain)

    def title(self, network: Network) -> str | None:
        """See Family.title."""
        return _EVM_TITLES.get(network.chain)

    def parse_account_key(self, text: str, *, pointer: str = "/account_key") -> AccountKey:
        """See Family.parse_account_key."""
        return evm_addresses.EvmAccountKey.parse(text, pointer=pointer)

    def suits(self, account_key: str, network: Network) -> bool:
        """See Family.suits. Every network of the family uses the same keys."""
        return True

    def derive(self, account_key: str, index: int) -> str:
        """See Family.derive. BIP32 path 0/index below the account key."""
        return evm_addresses.normalize(_evm_key(account_key).derive(index))

    def derivation_path(self, account_key: str, index: int) -> str:
        """See Family.derivation_path."""
        return f"0/{index}"

    def normalize(self, address: str, network: Network | None) -> str:
        """See Family.normalize."""
        return evm_addresses.normalize(address)

    def display(self, address: str, network: Network | None) -> str:
        """See Family.display."""
        return evm_addresses.display(address)

    def payment_uri(self, network: Network, asset: Asset, address: str, amount: int) -> str:
        """See Family.payment_uri. EIP-681."""
        return evm_payment_uri(
            chain_id=int(network.chain),
            to=evm_addresses.display(address),
            amount=amount,
            contract=None if asset.contract is None else evm_addresses.display(asset.contract),
        )

    def qr_text(self, uri: str, address: str) -> str:
        """See Family.qr_text."""
        return uri

    def check_destination(self, address: str, network: Network) -> str:
        """See Family.check_destination."""
        return evm_addresses.check_destination(address)

    def has_checksum(self, address: str) -> bool:
        """See Family.has_checksum. Upper and lower case are it (EIP-55)."""
        return address == evm_addresses.display(address)

    def normalize_tx_hash(self, text: str) -> str:
        """See Family.normalize_tx_hash."""
        return evm_addresses.normalize_tx_hash(text)

    def unsigned_transaction(
        self, network: Network, asset: Asset, address: str, amount: int
    ) -> dict[str, Any] | None:
        """See Family.unsigned_transaction. An EIP-1559 transaction without its fee fields."""
        return evm_unsigned_transaction(
            chain_id=int(network.chain), to=address, amount=amount, contract=asset.contract
        )


FAMILIES: Final[Mapping[str, Family]] = {
    "evm": Evm(),
    "bitcoin": BitcoinFamily("bitcoin"),
    "litecoin": BitcoinFamily("litecoin"),
    "tron": Tron(),
}

"""A merchant's own wallet on a litecoind: it has the private keys that Tallystick never sees, and signs PSBTs.

For: tests of refunds on a real node. Holds true: the wallet is another one than the node's till, and knows nothing but
the keys it was given; what it signs is told to nobody before `send`.
Must not: be given keys that are worth anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from embit.descriptor.checksum import add_checksum
from embit.networks import NETWORKS

from tests.support.lite_shop import account
from tests.support.litecoind import Litecoind

KEYS: Final = 20
"""Children of each branch that the wallet knows."""


def private(purpose: int, number: int = 0) -> str:
    """An account of the test words, with its private key, as this node writes it."""
    return str(account(purpose, number).to_base58(version=NETWORKS["regtest"]["xprv"]))


def public(purpose: int, number: int = 0, *, xpub: bytes | None = None) -> str:
    """Its public key: as xpub, or with another prefix."""
    return str(account(purpose, number).to_public().to_base58(version=xpub))


def multisig(number: int, *, secret: bool = False) -> str:
    """A wallet of two signatures of three: for registering it, or with two of its private keys (`%d` is the branch)."""
    if not secret:
        keys = [f"{public(48, number + one)}/<0;1>/*" for one in range(3)]
    else:
        keys = [f"{private(48, number + one)}/%d/*" for one in range(2)]
        keys.append(f"{public(48, number + 2, xpub=NETWORKS['regtest']['xpub'])}/%d/*")
    return f"wsh(sortedmulti(2,{','.join(keys)}))"


@dataclass(frozen=True, slots=True)
class Signer:
    """One such wallet."""

    node: Litecoind
    name: str

    @classmethod
    async def open(cls, node: Litecoind, name: str, secret: str) -> Signer:
        """Make it from a descriptor with private keys, in which `%d` stands for the branch."""
        await node.rpc_in(None, "createwallet", name, False, True)
        requests = [
            {
                "desc": add_checksum(secret % ((branch,) * secret.count("%d"))),
                "timestamp": "now",
                "range": [0, KEYS - 1],
                "internal": branch == 1,
            }
            for branch in (0, 1)
        ]
        answers = await node.rpc_in(name, "importmulti", requests)
        assert all(answer["success"] for answer in answers), answers
        return cls(node, name)

    async def decoded(self, psbt: str) -> dict[str, Any]:
        """What the node reads in a PSBT once this wallet has filled in what it knows, with its fee."""
        filled = await self.node.rpc_in(self.name, "walletprocesspsbt", psbt, False)
        return dict(await self.node.rpc("decodepsbt", filled["psbt"]))

    async def sign(self, psbt: str) -> str:
        """The finished transaction in hex."""
        signed = await self.node.rpc_in(self.name, "walletprocesspsbt", psbt)
        assert signed["complete"], await self.node.rpc("analyzepsbt", signed["psbt"])
        final = await self.node.rpc("finalizepsbt", signed["psbt"])
        return str(final["hex"])

    async def send(self, psbt: str) -> str:
        """Sign it and put it into the mempool. Returns its id."""
        return await self.node.submit(await self.sign(psbt))

    async def unspent(self) -> list[dict[str, Any]]:
        """What it could spend, amounts as Decimal."""
        return list(await self.node.rpc_in(self.name, "listunspent", 0))

"""A local EVM chain under a test's full control.

For: tests against a real node. `Chain` deploys, mints, signs with any nonce, mines and reorganises; every method
leaves mining to the test unless it says otherwise, so start anvil with `--no-mining`.
Holds true: amounts are base units, addresses lower-case hex. Blocks come only from `mine` and the methods documented
to mine.
Must not: know Tallystick's database or services.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from tallystick.demo.customer import (
    FEE_WEI,
    TIP_WEI,
    Contract,
    Customer,
    Signed,
    demo_token,
    development_account,
    sign,
)

CONTRACTS = Path(__file__).parent / "contracts"


@cache
def contract(name: str) -> Contract:
    """A compiled contract of `tests/support/contracts` or the demo's token."""
    if name == "DemoToken":
        return demo_token()
    return Contract.from_json((CONTRACTS / f"{name}.json").read_text())


def address_of(account: int) -> str:
    """The address of a development account (anvil funds 0 to 9), lower case."""
    return str(development_account(account).address).lower()


class Chain:
    """One anvil node. `sender` arguments are indices of anvil's funded accounts."""

    def __init__(self, url: str, chain_id: int) -> None:
        self.url = url
        self.chain_id = chain_id
        self._customer = Customer(url, chain_id, development_account(0))

    async def __aenter__(self) -> Self:
        await self._customer.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._customer.__aexit__(None, None, None)

    async def rpc(self, method: str, *params: Any) -> Any:
        """Any method's result."""
        return await self._customer.ask(method, *params)

    # -- transactions

    async def nonce(self, sender: int) -> int:
        """The account's next nonce, pending transactions counted."""
        return int(await self.rpc("eth_getTransactionCount", address_of(sender), "pending"), 16)

    async def sign(
        self,
        *,
        to: str | None,
        value: int = 0,
        data: bytes = b"",
        sender: int = 0,
        nonce: int | None = None,
        fee_wei: int = FEE_WEI,
        tip_wei: int = TIP_WEI,
        gas_limit: int = 3_000_000,
    ) -> Signed:
        """Sign without sending. `.raw` is what `reorg` takes."""
        return sign(
            development_account(sender),
            chain_id=self.chain_id,
            nonce=await self.nonce(sender) if nonce is None else nonce,
            to=to,
            value=value,
            data=data,
            fee_wei=fee_wei,
            tip_wei=tip_wei,
            gas_limit=gas_limit,
        )

    async def submit(self, signed: Signed) -> str:
        """Send a signed transaction to the pool. Returns its hash."""
        return str(await self.rpc("eth_sendRawTransaction", signed.raw))

    async def send_native(self, to: str, amount: int, *, sender: int = 0, nonce: int | None = None) -> Signed:
        """Put a native payment into the pool."""
        signed = await self.sign(to=to, value=amount, sender=sender, nonce=nonce)
        await self.submit(signed)
        return signed

    async def send_token(
        self, token: str, to: str, amount: int, *, sender: int = 0, nonce: int | None = None
    ) -> Signed:
        """Put a token payment into the pool."""
        data = contract("DemoToken").call("transfer", to, amount)
        signed = await self.sign(to=token, data=data, sender=sender, nonce=nonce)
        await self.submit(signed)
        return signed

    async def send_call(
        self, target: str, name: str, function: str, *arguments: Any, sender: int = 0, value: int = 0
    ) -> Signed:
        """Put a call of a contract's function into the pool. `name` is the compiled contract's."""
        data = contract(name).call(function, *arguments)
        signed = await self.sign(to=target, data=data, sender=sender, value=value)
        await self.submit(signed)
        return signed

    async def replacement(
        self, original: Signed, *, to: str, value: int = 0, data: bytes = b"", sender: int = 0
    ) -> Signed:
        """Sign (not send) another transaction with the same nonce and a fee that beats the original's."""
        return await self.sign(
            to=to,
            value=value,
            data=data,
            sender=sender,
            nonce=original.nonce,
            fee_wei=original.fee_wei * 2,
            tip_wei=TIP_WEI * 20,
        )

    # -- contracts; these mine one block

    async def deploy(self, name: str, *arguments: Any, sender: int = 0) -> str:
        """Deploy a compiled contract in a block of its own. Returns its address."""
        signed = await self.sign(to=None, data=contract(name).deployment(*arguments), sender=sender)
        await self.submit(signed)
        await self.mine()
        receipt = await self.receipt(signed.tx_hash)
        assert receipt["status"] == "0x1"
        return str(receipt["contractAddress"]).lower()

    async def deploy_token(
        self, name: str = "Demo Dollar", symbol: str = "DUSD", decimals: int = 6, *, supply: int = 10**15
    ) -> str:
        """Deploy an ERC-20 and mint `supply` to account 0, in two blocks. Returns its address."""
        token = await self.deploy("DemoToken", name, symbol, decimals)
        await self.mint(token, address_of(0), supply)
        return token

    async def mint(self, token: str, to: str, amount: int) -> Signed:
        """Mint tokens in a block of its own."""
        signed = await self.send_call(token, "DemoToken", "mint", to, amount)
        await self.mine()
        return signed

    async def approve(self, token: str, spender: str, amount: int = 2**256 - 1, *, sender: int = 0) -> Signed:
        """Let `spender` move the sender's tokens, in a block of its own."""
        signed = await self.send_call(token, "DemoToken", "approve", spender, amount, sender=sender)
        await self.mine()
        return signed

    # -- blocks

    async def mine(self, blocks: int = 1) -> int:
        """Mine blocks; the first takes what is in the pool. Returns the new height."""
        for _ in range(blocks):
            await self.rpc("evm_mine")
        return await self.height()

    async def mine_many(self, blocks: int, *, interval_seconds: int = 1) -> int:
        """Mine many blocks at once. Returns the new height."""
        await self.rpc("anvil_mine", hex(blocks), hex(interval_seconds))
        return await self.height()

    async def reorg(self, depth: int, transactions: Sequence[tuple[Signed, int]] = ()) -> int:
        """Replace the last `depth` blocks by as many new ones that hold `transactions` at their block offsets.

        Offset 0 is the first new block. What the old blocks held is gone, also from the pool. Returns the height.
        """
        await self.rpc("anvil_reorg", depth, [[signed.raw, offset] for signed, offset in transactions])
        return await self.height()

    async def drop(self, tx_hash: str) -> None:
        """Take a transaction out of the pool."""
        await self.rpc("anvil_dropTransaction", tx_hash)

    async def set_next_time(self, unix_seconds: int) -> None:
        """The time of the next block."""
        await self.rpc("evm_setNextBlockTimestamp", unix_seconds)

    async def time(self) -> int:
        """The newest block's time, in unix seconds."""
        return int((await self.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16)

    async def height(self) -> int:
        """The newest block's number."""
        return int(await self.rpc("eth_blockNumber"), 16)

    async def block_hash(self, height: int) -> str:
        """The best chain's block at `height`."""
        return str((await self.rpc("eth_getBlockByNumber", hex(height), False))["hash"])

    async def receipt(self, tx_hash: str) -> dict[str, Any]:
        """A mined transaction's receipt."""
        receipt = await self.rpc("eth_getTransactionReceipt", tx_hash)
        assert receipt is not None, f"{tx_hash} is not mined"
        return dict(receipt)

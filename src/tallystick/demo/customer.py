"""A simulated customer on a local EVM chain: signs and sends payments, deploys the demo token.

For: the demo, and the tests through `tests.support.evm`.
Holds true: keys come from anvil's public development phrase or are made for the occasion; nonces are given by the
caller or asked from the node, so that two transactions can be made to compete for one.
Must not: be used with a key that holds real value, or be imported by the server. `eth_account` is imported on first
use: it takes more than half a second.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from tallystick.chains.evm.addresses import display
from tallystick.chains.evm.keccak import keccak256
from tallystick.chains.json_rpc import Answer, Call, RpcClient, RpcLimits, new_session
from tallystick.core.errors import SourceIncomplete, SourceUnavailable
from tallystick.demo.anvil import MNEMONIC

if TYPE_CHECKING:
    from types import TracebackType

    from eth_account.signers.local import LocalAccount

GAS_LIMIT: Final = 3_000_000
FEE_WEI: Final = 100 * 10**9
TIP_WEI: Final = 10**9

POLL_SECONDS: Final = 0.05
MINED_TIMEOUT_SECONDS: Final = 60.0

_ANY: Final = msgspec.json.Decoder(Answer[Any])


class _NotMinedError(Exception):
    """The transaction is in no block yet."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A compiled contract: what `solc` made of a source in `demo/contracts` (or of a test's)."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read a compiled contract's JSON file."""
        value = json.loads(text)
        return cls(value["contract"], value["abi"], bytes.fromhex(value["bytecode"][2:]))

    def deployment(self, *arguments: Any) -> bytes:
        """The data of the transaction that deploys it."""
        return self.bytecode + _encode(self._inputs("constructor", None), arguments)

    def call(self, function: str, *arguments: Any) -> bytes:
        """The data of a call of `function`: its selector and its arguments (Solidity ABI)."""
        types = self._inputs("function", function)
        selector = keccak256(f"{function}({','.join(types)})".encode())[:4]
        return selector + _encode(types, arguments)

    def _inputs(self, kind: str, name: str | None) -> list[str]:
        for entry in self.abi:
            if entry["type"] == kind and entry.get("name") == name:
                return [field["type"] for field in entry["inputs"]]
        if kind == "constructor":
            return []
        raise LookupError(f"{self.name} has no function {name}")


@cache
def demo_token() -> Contract:
    """The plain ERC-20 token of the demo: constructor (name, symbol, decimals), anybody may `mint`."""
    return Contract.from_json((files("tallystick.demo") / "contracts" / "DemoToken.json").read_text())


@cache
def development_account(index: int) -> LocalAccount:
    """One of the accounts that anvil funds (index 0 to 9), or any further one of its phrase, without funds."""
    from eth_account import Account

    Account.enable_unaudited_hdwallet_features()
    account: LocalAccount = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return account


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed transaction: `raw` is its 0x-hex for `eth_sendRawTransaction`, `to` None deploys a contract."""

    raw: str
    tx_hash: str
    sender: str
    nonce: int
    to: str | None
    fee_wei: int


def sign(
    account: LocalAccount,
    *,
    chain_id: int,
    nonce: int,
    to: str | None,
    value: int = 0,
    data: bytes = b"",
    gas_limit: int = GAS_LIMIT,
    fee_wei: int = FEE_WEI,
    tip_wei: int = TIP_WEI,
) -> Signed:
    """Sign a transaction (EIP-1559). Amounts and fees are in wei."""
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "value": value,
        "data": data,
        "gas": gas_limit,
        "maxFeePerGas": fee_wei,
        "maxPriorityFeePerGas": tip_wei,
    }
    if to is not None:
        fields["to"] = display(to)
    done = account.sign_transaction(fields)
    raw, tx_hash = "0x" + bytes(done.raw_transaction).hex(), "0x" + bytes(done.hash).hex()
    return Signed(raw, tx_hash, account.address.lower(), nonce, to, fee_wei)


class Customer:
    """An account on a chain, with its own connection to the node. Use as an asynchronous context manager.

    Amounts are base units. Methods return the transaction's hash as soon as the node has taken it; `deploy` waits for
    the block. Raises SourceError's tree when the node does not take it.
    """

    def __init__(self, rpc_url: str, chain_id: int, account: LocalAccount) -> None:
        self.account = account
        self.address: str = account.address.lower()
        self._url = rpc_url
        self._chain_id = chain_id
        self._limits = RpcLimits()
        self._rpc: RpcClient | None = None

    async def __aenter__(self) -> Self:
        self._session = new_session(self._limits)
        self._rpc = RpcClient(self._url, self._session, self._limits)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, method: str, *params: Any) -> Any:
        """Any JSON-RPC method's result."""
        if self._rpc is None:
            raise RuntimeError("Customer is used outside its context")
        return await self._rpc.call(Call(method, list(params)), _ANY)

    async def next_nonce(self) -> int:
        """The account's next nonce, pending transactions counted."""
        return int(await self.ask("eth_getTransactionCount", self.address, "pending"), 16)

    async def send(self, *, to: str | None, value: int = 0, data: bytes = b"") -> str:
        """Sign with the next nonce and send. Returns the transaction's hash."""
        nonce = await self.next_nonce()
        signed = sign(self.account, chain_id=self._chain_id, nonce=nonce, to=to, value=value, data=data)
        return str(await self.ask("eth_sendRawTransaction", signed.raw))

    async def pay_native(self, to: str, amount: int) -> str:
        """Send `amount` wei to `to`."""
        return await self.send(to=to, value=amount)

    async def pay_token(self, contract: str, to: str, amount: int) -> str:
        """Send `amount` base units of the token at `contract` to `to`."""
        return await self.send(to=contract, data=demo_token().call("transfer", to, amount))

    async def mint(self, contract: str, to: str, amount: int) -> str:
        """Make `amount` base units of a demo token out of nothing."""
        return await self.send(to=contract, data=demo_token().call("mint", to, amount))

    async def deploy(self, contract: Contract, *arguments: Any) -> str:
        """Deploy a contract, wait until it is mined, and return its address in lower case."""
        tx_hash = await self.send(to=None, data=contract.deployment(*arguments))
        receipt = await self.wait_mined(tx_hash)
        if receipt["status"] != "0x1":
            raise SourceIncomplete("The contract was not deployed.", object_id=contract.name)
        return str(receipt["contractAddress"]).lower()

    async def wait_mined(self, tx_hash: str) -> dict[str, Any]:
        """The transaction's receipt, as soon as it is in a block. Raises SourceUnavailable if that takes too long."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_NotMinedError),
                wait=wait_fixed(POLL_SECONDS),
                stop=stop_after_delay(MINED_TIMEOUT_SECONDS),
                reraise=True,
            ):
                with attempt:
                    receipt = await self.ask("eth_getTransactionReceipt", tx_hash)
                    if receipt is None:
                        raise _NotMinedError
                    return dict(receipt)
        except _NotMinedError:
            pass
        raise SourceUnavailable(
            f"The transaction was not mined within {MINED_TIMEOUT_SECONDS:g} s.", object_id=tx_hash
        )


def _encode(types: list[str], arguments: tuple[Any, ...]) -> bytes:
    from eth_abi.abi import encode

    return encode(types, arguments)

"""A real UTXO chain for tests: Debian's litecoind 0.21 on a regtest chain of its own.

For: the Bitcoin family's sources, mempool, refunds and scenarios; one node per test (0.4 s to start, 0.4 s to fund).
Holds true: nothing is written to a node before the process that we started answers on our port with our password; it
ends with us, and its folder goes with it. Blocks are mined only by the methods here, always to a new address, so that a
replaced block never returns by itself. The wallet never broadcasts by itself: what is in the mempool was put there by
`submit`, so that a restart can forget it. Amounts are integers of base units (litoshi, 10^-8).
Must not: be told real keys; its chain is worth nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from tallystick.db.child_process import bound_to_us
from tests.support.anvil import free_port

HOST: Final = "127.0.0.1"
USER: Final = "user"
PASSWORD: Final = "secret"
WALLET: Final = "till"
COIN: Final = 100_000_000
FEE: Final = 20_000
"""What a transaction of ours pays unless told otherwise, in litoshi: far above the relay minimum."""
MATURITY: Final = 100
MWEB_HEIGHT: Final = 432
"""The block from which on MWEB is active on regtest, where every block up to it signals."""
REPLACEABLE: Final = 0xFFFFFFFD  # BIP125: below 0xfffffffe
UNREPLACEABLE: Final = 0xFFFFFFFE
START_TIMEOUT_SECONDS: Final = 30.0
STOP_TIMEOUT_SECONDS: Final = 2.0

Outputs = Mapping[str, int] | Sequence[tuple[str, int]]


class NodeError(Exception):
    """The node refused a call. `code` is its error code."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.code = code


class _NotYetError(Exception):
    """The node does not answer yet."""


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent output of the wallet; `amount` in litoshi, `script` in hex."""

    txid: str
    vout: int
    amount: int
    script: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A signed transaction: its id, its bytes in hex, and the coins that it spends."""

    txid: str
    raw: str
    coins: tuple[Coin, ...]


def coins_text(amount: int) -> str:
    """An amount of litoshi as the decimal text that the RPC takes."""
    return f"{Decimal(amount).scaleb(-8):.8f}"


def litoshi(amount: Any) -> int:
    """An amount of the RPC (Decimal) in litoshi."""
    return int(Decimal(amount).scaleb(8).to_integral_exact())


class Litecoind:
    """A running node. Made by `start_litecoind`.

    `url` holds the credentials, as a configuration would; `bare_url` does not (for a proxy before the node).
    """

    def __init__(self, folder: Path, port: int, http: aiohttp.ClientSession, extra: Sequence[str]) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://{USER}:{PASSWORD}@{HOST}:{port}"
        self.bare_url = f"http://{HOST}:{port}"
        self._http = http
        self._extra = tuple(extra)
        self._process: subprocess.Popen[bytes] | None = None
        self._last_id = 0
        self._wallet = False
        self._decode = msgspec.json.Decoder(float_hook=Decimal).decode

    # -- the process

    @property
    def pid(self) -> int:
        """The process id, for tests that freeze or kill the node."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *more: str) -> None:
        """Start the process and wait until it answers; `more` arguments hold for this run only."""
        program = os.environ.get("TALLYSTICK_LITECOIND") or shutil.which("litecoind")
        assert program is not None, "litecoind is not installed (Debian's package `litecoind`)."
        arguments = [
            "-regtest", f"-datadir={self.folder}", "-listen=0", "-dnsseed=0", "-server", "-printtoconsole=0",
            f"-rpcbind={HOST}", f"-rpcallowip={HOST}", f"-rpcport={self.port}", f"-rpcuser={USER}",
            f"-rpcpassword={PASSWORD}", "-rpcworkqueue=256", "-fallbackfee=0.0002", "-mempoolreplacement=1",
            "-walletbroadcast=0", "-keypool=20", "-dbcache=16", "-par=1", *self._extra, *more,
        ]  # fmt: skip
        if self._wallet:
            arguments.append(f"-wallet={WALLET}")
        self._process = subprocess.Popen(
            bound_to_us([program, *arguments], when_parent_dies=signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_NotYetError),
            wait=wait_fixed(0.02),
            stop=stop_after_delay(START_TIMEOUT_SECONDS),
        ):
            with attempt:
                await self._probe()

    async def _probe(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            log = self.folder / "regtest" / "debug.log"
            raise RuntimeError(f"litecoind ended: {log.read_text()[-2000:] if log.exists() else 'no log'}")
        try:
            await self.rpc("getblockcount")
        except (aiohttp.ClientError, NodeError) as error:
            raise _NotYetError from error

    async def stop(self) -> None:
        """End the process in order (its chain, wallet and mempool are saved); calling it again does nothing.

        This old server waits for half a minute until every client has closed its connection. Some tests' clients keep
        theirs, so what is to be saved is saved beforehand, and the server's patience is cut short.
        """
        if self._process is None or self._process.poll() is not None:
            return
        self.thaw()
        await self._save()
        for how in (signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(how)
            try:
                await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return

    async def _save(self) -> None:
        """Bring everything to the disk. A node that does not answer has nothing that we would miss."""
        try:
            await self.rpc("gettxoutsetinfo")  # writes the chain's state first
            await self.rpc("savemempool")
            if self._wallet:
                await self.rpc("unloadwallet", WALLET)
        except (aiohttp.ClientError, NodeError, TimeoutError):
            return

    async def kill(self) -> None:
        """End the process without a word, as a loss of power would. Start it again with `start`."""
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_SECONDS)

    async def restart(self, *more: str, forget_mempool: bool = False) -> None:
        """Stop and start again on the same port and chain; with `forget_mempool` the mempool is empty then."""
        await self.stop()
        if forget_mempool:
            (self.folder / "regtest" / "mempool.dat").unlink(missing_ok=True)
        await self.start(*more)

    def freeze(self) -> None:
        """Make the node silent: it accepts connections and answers nothing. `thaw` ends it."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        os.kill(self.pid, signal.SIGCONT)

    # -- calls

    async def rpc(self, method: str, *params: Any) -> Any:
        """The result of one call, amounts as Decimal. Raises NodeError, or aiohttp's errors when nobody answers."""
        return await self.rpc_in(WALLET if self._wallet else None, method, *params)

    async def rpc_in(self, wallet: str | None, method: str, *params: Any) -> Any:
        """The same with another wallet of the node, which the caller made (None: with none)."""
        self._last_id += 1
        async with self._http.post(
            self.bare_url + (f"/wallet/{wallet}" if wallet is not None else ""),
            data=msgspec.json.encode({"id": self._last_id, "method": method, "params": params}),
            headers={"Authorization": aiohttp.encode_basic_auth(USER, PASSWORD)},
        ) as response:
            body = await response.read()
        answer = self._decode(body)
        if answer["error"] is not None:
            raise NodeError(method, answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    async def height(self) -> int:
        """The height of the newest block."""
        return int(await self.rpc("getblockcount"))

    async def best(self) -> str:
        """The newest block's hash."""
        return str(await self.rpc("getbestblockhash"))

    async def hash_at(self, height: int) -> str:
        """The best chain's block at a height."""
        return str(await self.rpc("getblockhash", height))

    async def mempool(self) -> list[str]:
        """The ids of the transactions outside any block."""
        return list(await self.rpc("getrawmempool"))

    async def new_address(self, kind: str = "bech32") -> str:
        """A new address of the wallet: bech32, p2sh-segwit, legacy or mweb."""
        if not self._wallet:
            await self.rpc("createwallet", WALLET)
            self._wallet = True
        return str(await self.rpc("getnewaddress", "", kind))

    async def script_of(self, address: str) -> str:
        """An address's output script, in hex."""
        found = await self.rpc("validateaddress", address)
        return str(found["scriptPubKey"])

    # -- blocks

    async def mine(self, blocks: int = 1, *, to: str | None = None) -> int:
        """Mine blocks with what the mempool holds, to a new address each time. Returns the new height."""
        await self.rpc("generatetoaddress", blocks, to or await self.new_address())
        return await self.height()

    async def mine_only(self, *transactions: Sent | str, to: str | None = None) -> int:
        """Mine one block with exactly these transactions (none: an empty block). Returns its height.

        The rest of the mempool stays, but for what conflicts with them.
        """
        raws = [one.raw if isinstance(one, Sent) else one for one in transactions]
        await self.rpc("generateblock", to or await self.new_address(), raws)
        return await self.height()

    async def undo(self, depth: int) -> int:
        """Take the newest blocks off the chain; their transactions go back to the mempool. Returns the new height."""
        await self.rpc("invalidateblock", await self.hash_at(await self.height() - depth + 1))
        return await self.height()

    async def reorg(self, depth: int, blocks: Iterable[Iterable[Sent | str]] | None = None) -> int:
        """Replace the newest blocks by others, each holding exactly the given transactions. Returns the height.

        None: as many empty blocks as were taken off. What the old blocks held waits in the mempool, unless it
        conflicts with what the new ones hold.
        """
        await self.undo(depth)
        for transactions in [[] for _ in range(depth)] if blocks is None else blocks:
            await self.mine_only(*transactions)
        return await self.height()

    async def fund(self, blocks: int = 10, *, until: int | None = None) -> int:
        """Mine so many blocks whose coins can be spent afterwards. Returns the height, at least `until` if given.

        On a new chain all but the last are dated hours ago: many blocks mined in one second run ahead of the clock (one
        second for every six), as they do on a chain that has recent blocks already.
        """
        address = await self.new_address()
        count = max(blocks + MATURITY, until or 0) - await self.height() - 1
        if count > 0:
            past = int(time.time()) - 12 * 3600
            tip = await self.rpc("getblockheader", await self.best())
            await self.set_time(past if tip["time"] < past else None)
            await self.mine(count, to=address)
            await self.set_time(None)
        return await self.mine()

    async def activate_mweb(self) -> int:
        """Mine until MWEB is active: from then on every block ends with a HogEx. Returns the height.

        The block that activates it has to bring coins in, so the wallet owns MWEB coins afterwards. From then on this
        old node cannot do `mine_only` or `reorg` (its `generateblock` knows no HogEx), and after `undo` of a block with
        MWEB parts it mines again only when restarted with `forget_mempool`.
        """
        await self.fund(until=MWEB_HEIGHT - 1)
        await self.send(await self.new_address("mweb"), 5 * COIN)
        return await self.mine()

    async def set_time(self, seconds: int | None) -> None:
        """Stop the node's clock at a Unix time; None: let it go with the machine's."""
        await self.rpc("setmocktime", seconds or 0)

    # -- transactions

    async def coins(self, *, confirmations_min: int = 1) -> list[Coin]:
        """The wallet's unspent ordinary outputs, the largest first; with `confirmations_min=0` unconfirmed ones too."""
        found = await self.rpc("listunspent", confirmations_min)
        coins = [
            Coin(one["txid"], one["vout"], litoshi(one["amount"]), one["scriptPubKey"])
            for one in found
            if "vout" in one and one["spendable"]
        ]
        return sorted(coins, key=lambda coin: (-coin.amount, coin.txid, coin.vout))

    async def sign(
        self,
        outputs: Outputs,
        *,
        coins: Sequence[Coin] | None = None,
        fee: int = FEE,
        sequence: int = REPLACEABLE,
        change: str | None = None,
    ) -> Sent:
        """A signed transaction that is told to nobody. Coins: those given (all are spent), else as many as needed.

        What is left goes to `change` (a new address where None), after all other outputs; dust goes to the fee.
        """
        listed = list(outputs.items()) if isinstance(outputs, Mapping) else list(outputs)
        needed = sum(amount for _, amount in listed) + fee
        chosen = list(coins or ())
        if coins is None:
            for coin in await self.coins():
                if sum(one.amount for one in chosen) >= needed:
                    break
                chosen.append(coin)
        left = sum(coin.amount for coin in chosen) - needed
        assert left >= 0, f"The wallet lacks {-left} litoshi."
        if left > 10_000:
            listed.append((change or await self.new_address(), left))
        inputs = [{"txid": coin.txid, "vout": coin.vout, "sequence": sequence} for coin in chosen]
        # An array of objects: one address may stand in it only once, so others are spliced in below.
        raw = await self._raw(inputs, listed)
        previous = [
            {
                "txid": coin.txid,
                "vout": coin.vout,
                "scriptPubKey": coin.script,
                "amount": coins_text(coin.amount),
            }
            for coin in chosen
        ]
        signed = await self.rpc("signrawtransactionwithwallet", raw, previous)
        assert signed["complete"], signed
        decoded = await self.rpc("decoderawtransaction", signed["hex"])
        return Sent(decoded["txid"], signed["hex"], tuple(chosen))

    async def _raw(self, inputs: list[dict[str, Any]], outputs: list[tuple[str, int]]) -> str:
        """An unsigned transaction. The RPC refuses an address twice, so its output count and outputs are ours."""
        raw = bytes.fromhex(await self.rpc("createrawtransaction", inputs, []))
        # Layout: everything up to the output count (0x00), then the lock time's four bytes.
        head, lock_time = raw[:-5], raw[-4:]
        assert raw[-5] == 0
        assert len(outputs) < 0xFD * 256
        count = bytes([len(outputs)]) if len(outputs) < 0xFD else b"\xfd" + len(outputs).to_bytes(2, "little")
        body = b""
        for address, amount in outputs:
            script = bytes.fromhex(await self.script_of(address))
            body += amount.to_bytes(8, "little") + bytes([len(script)]) + script
        return (head + count + body + lock_time).hex()

    async def submit(self, transaction: Sent | str) -> str:
        """Put a signed transaction into the mempool. Returns its id. Raises NodeError."""
        raw = transaction.raw if isinstance(transaction, Sent) else transaction
        return str(await self.rpc("sendrawtransaction", raw, "100"))

    async def send(self, to: str, amount: int, *, fee: int = FEE, sequence: int = REPLACEABLE) -> Sent:
        """Pay an address out of the wallet, into the mempool. For MWEB addresses the node's own wallet does it."""
        if to.partition("1")[0].endswith("mweb"):
            return await self._send_by_wallet(to, amount)
        sent = await self.sign({to: amount}, fee=fee, sequence=sequence)
        await self.submit(sent)
        return sent

    async def pay(self, outputs: Outputs, *, fee: int = FEE, sequence: int = REPLACEABLE) -> Sent:
        """One transaction with several outputs (an address may come twice), into the mempool."""
        sent = await self.sign(outputs, fee=fee, sequence=sequence)
        await self.submit(sent)
        return sent

    async def respend(self, sent: Sent, outputs: Outputs, *, fee: int = 5 * FEE) -> Sent:
        """A signed transaction that spends the same coins for other outputs. Told to nobody yet."""
        return await self.sign(outputs, coins=sent.coins, fee=fee)

    async def replace(self, sent: Sent, outputs: Outputs, *, fee: int = 5 * FEE) -> Sent:
        """Replace a transaction in the mempool by fee (BIP125): the same coins, other outputs."""
        other = await self.respend(sent, outputs, fee=fee)
        await self.submit(other)
        return other

    async def spend_child(self, sent: Sent, vout: int, to: str, *, fee: int = FEE) -> Sent:
        """Spend an output of ours that no block holds yet, into the mempool: a payment with an unconfirmed parent."""
        parent = await self.rpc("decoderawtransaction", sent.raw)
        output = parent["vout"][vout]
        amount = litoshi(output["value"])
        coin = Coin(sent.txid, vout, amount, output["scriptPubKey"]["hex"])
        child = await self.sign({to: amount - fee}, coins=[coin], fee=fee)
        await self.submit(child)
        return child

    async def drop(self, txid: str) -> None:
        """Take a transaction and its descendants out of the mempool, as an eviction would.

        Restarts the node without a mempool and submits the others again.
        """
        gone = {txid, *await self.rpc("getmempooldescendants", txid)}
        others = {
            one: found["ancestorcount"] for one, found in (await self.rpc("getrawmempool", True)).items()
        }
        raws = [
            await self.rpc("getrawtransaction", one)
            for one in sorted(others, key=lambda one: others[one])  # parents first
            if one not in gone
        ]
        await self.restart(forget_mempool=True)
        for raw in raws:
            await self.submit(raw)

    async def _send_by_wallet(self, to: str, amount: int) -> Sent:
        """MWEB transactions are built by the wallet only; it says their bytes, which we submit."""
        txid = await self.rpc("sendtoaddress", to, coins_text(amount))
        found = await self.rpc("gettransaction", txid)
        await self.submit(found["hex"])
        return Sent(txid, found["hex"], ())


@asynccontextmanager
async def start_litecoind(*extra: str, txindex: bool = False) -> AsyncIterator[Litecoind]:
    """Run a node for the length of the block, with a folder and a port of its own. `extra` are further arguments.

    Without `txindex` it knows transactions by their id only while they are outside any block, as most nodes do.
    """
    folder = Path(tempfile.mkdtemp(prefix="tallystick-litecoind-"))
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        node = Litecoind(folder, free_port(), http, [f"-txindex={int(txindex)}", *extra])
        try:
            await node.start()
            yield node
        finally:
            await node.stop()
            shutil.rmtree(folder, ignore_errors=True)

"""How TRON's nodes are asked where a provider offers only their part of Ethereum's JSON-RPC.

For: `runtime`; the source itself is `evm.source`. What its nodes do differently, as their code and documentation say:

- The path is `/jsonrpc`. The tags are `latest` and `finalized`, the solidified block; `safe` and `pending` are refused.
- Log blooms and receipts' roots are zeros, the root of transactions is not Ethereum's trie.
- Accounts have no nonce; what stands in its place is null or zeros. `evm.blocks` gives such a transaction a spend key
  of its own. Balances are told for the newest block only, so none are asked for.
- **`value` is not always TRX.** For a TransferAssetContract it is an amount of a TRC-10 token, which anybody can issue;
  for a vote the number of votes; for a freeze what is frozen. Nothing else in the answer tells these apart, so that a
  worthless token would be taken for TRX. Therefore no TRX is told here at all: networks that are followed this way take
  tokens only. The HTTP interface (`source`) tells everything.

Must not: promise TRX payments on such a network.
"""

from __future__ import annotations

from yarl import URL

from tallystick.chains.evm.source import EvmOptions
from tallystick.chains.json_rpc import RpcLimits
from tallystick.chains.tron.chains import API_KEY_HEADER

_PATH = "jsonrpc"


def evm_options(
    network: str,
    chain_id: int,
    urls: tuple[str, ...],
    *,
    genesis_hash: str | None = None,
    requests_per_second: float = 10.0,
    limits: RpcLimits | None = None,
) -> EvmOptions:
    """The options of an EVM source that reads TRON. `urls` with or without `/jsonrpc` at their end."""
    return EvmOptions(
        network=network,
        chain_id=chain_id,
        rpc_urls=tuple(with_path(url) for url in urls),
        genesis_hash=genesis_hash,
        tags=("finalized",),
        blooms=False,
        native_values=False,
        traces="off",
        key_header=API_KEY_HEADER,
        requests_per_second=requests_per_second,
        limits=limits or RpcLimits(),
    )


def with_path(url: str) -> str:
    """The URL with `/jsonrpc` at its end. One that cannot be read stays as it is: who opens it says what is wrong."""
    try:
        parts = URL(url)
        if not parts.absolute or parts.path.rstrip("/").endswith("/" + _PATH):
            return url
        return str(parts / _PATH)
    except ValueError:
        return url

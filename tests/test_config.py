"""The configuration: what is accepted, what is refused and in which words; no other error, whatever comes."""

from __future__ import annotations

import contextlib
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick import config
from tallystick.config import Config, default_text, from_document, load
from tallystick.config_kinds import BitcoinSettings, TronSettings
from tallystick.config_reader import environment_form
from tallystick.core.chain import Finality, Requirement
from tallystick.core.errors import ConfigurationError

CONTRACT = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
DATA_DIR = {"TALLYSTICK_DATA_DIR": "/somewhere"}


def network(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "evm",
        "chain_id": 1,
        "rpc": ["http://127.0.0.1:8545"],
        "native": {"symbol": "ETH", "decimals": 18},
    } | changes


def token(**changes: Any) -> dict[str, Any]:
    return {"contract": CONTRACT, "decimals": 6} | changes


def read(document: dict[str, Any], **environment: str) -> Config:
    return from_document(document, environment=DATA_DIR | environment)


def with_network(**changes: Any) -> dict[str, Any]:
    return {"networks": {"ethereum": network(**changes)}}


def problem(document: dict[str, Any], **environment: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read(document, **environment)
    return str(raised.value)


def test_defaults() -> None:
    found = read({})
    assert (found.host, found.port) == ("127.0.0.1", 8420)
    assert found.database_url is None
    assert found.url_on(8420) == "http://127.0.0.1:8420"
    assert found.networks == {}
    assert found.webhooks.allow_private_targets is False


def test_the_commented_file_is_valid_and_says_the_defaults() -> None:
    assert from_document(tomllib.loads(default_text()), environment=DATA_DIR) == read({})


def _uncommented() -> dict[str, Any]:
    """The commented file with its examples switched on."""
    lines = []
    for line in default_text().splitlines():
        bare = line.removeprefix("# ").removeprefix("#").strip()
        is_example = line.startswith("#") and (bare.startswith("[") or " = " in bare.split("#")[0])
        lines.append(bare if is_example and not bare[:1].isupper() else line)
    return tomllib.loads("\n".join(lines).replace("0x…", "0x" + "ab" * 32))


def test_the_commented_file_names_every_key_that_exists() -> None:
    """Uncommented, it is a valid configuration; and every field of the dataclasses is in it."""
    document = _uncommented()
    found = from_document(document, environment={})
    assert found.networks["ethereum"].network.pegs == {CONTRACT.lower(): "USD"}
    assert found.rates.static["ETH/USD"] == 2500
    networks = document["networks"]
    common = {"kind", "rpc", "native", "confirmations", "safety_depth", "poll_interval_ms", "start_height"}
    common |= {"batch_blocks", "stale_after_seconds", "request_timeout_seconds", "genesis_hash"}
    evm = {
        "chain_id",
        "finality",
        "finality_tags",
        "blooms",
        "traces",
        "mempool",
        "zero_conf_limit",
        "tokens",
    }
    assert set(networks["ethereum"]) == common | evm
    bitcoin = {"chain", "rpc_cookie_file", "zmq", "mempool", "zero_conf_limit", "fee_rate_default"}
    assert set(networks["bitcoin"]) == common | bitcoin
    assert set(networks["tron"]) == common | {"chain", "api", "requests_per_second", "tokens"}


@pytest.mark.parametrize("name", ["ethereum", "bitcoin", "tron"])
def test_the_defaults_that_the_commented_file_says_are_the_defaults(name: str) -> None:
    """Whatever is no example of something absent: leaving all of it out changes nothing."""
    shown = from_document(_uncommented(), environment={}).networks[name]
    document = _uncommented()
    required = {"kind", "chain", "chain_id", "rpc", "tokens", "native"}
    absent = {"genesis_hash", "rpc_cookie_file", "zmq"} | (
        {"zero_conf_limit"} if name == "ethereum" else set()
    )
    document["networks"] = {
        name: {key: value for key, value in document["networks"][name].items() if key in required | absent}
    }
    assert from_document(document, environment={}).networks[name] == shown


def test_a_whole_network() -> None:
    found = read(with_network(tokens={"USDC": token(par="USD")}, start_height=7, confirmations=5))
    ethereum = found.networks["ethereum"]
    assert ethereum.start_height == 7
    assert ethereum.network.chain == "1"
    assert ethereum.network.requirement == Requirement(Finality.DEPTH, 5)
    usdc = ethereum.network.asset_by_symbol("USDC")
    assert usdc is not None
    assert usdc.contract == CONTRACT.lower()
    assert ethereum.network.pegs == {CONTRACT.lower(): "USD"}


def bitcoin(**changes: Any) -> dict[str, Any]:
    return {"kind": "bitcoin", "chain": "litecoin-regtest", "rpc": ["http://u:p@127.0.0.1:9332"]} | changes


def tron(**changes: Any) -> dict[str, Any]:
    return {"kind": "tron", "rpc": ["http://127.0.0.1:8090"]} | changes


def test_a_network_of_bitcoins_family() -> None:
    found = read({"networks": {"lite": bitcoin(rpc_cookie_file="/x/.cookie", zmq=["tcp://127.0.0.1:1"])}})
    lite = found.networks["lite"]
    network = lite.network
    assert (network.family, network.chain, network.native.symbol) == ("litecoin", "litecoin-regtest", "LTC")
    assert (network.loose_times, network.finality_tags, network.has_accounts) == (True, False, False)
    assert (network.zero_conf_limit, network.fee_rate_default) == (10**8, 10_000)
    assert network.requirement == Requirement(Finality.DEPTH, 14)
    assert lite.settings == BitcoinSettings("litecoin-regtest", Path("/x/.cookie"), ("tcp://127.0.0.1:1",))
    assert (lite.poll_interval_ms, lite.stale_after_seconds, lite.mempool) == (5000, 1800, True)
    assert "u:p" not in repr(found)
    one = read({"networks": {"b": bitcoin(chain="bitcoin", zero_conf_limit="0", fee_rate_default=7)}})
    network = one.networks["b"].network
    assert (network.family, network.native.symbol, network.zero_conf_limit) == ("bitcoin", "BTC", 0)
    assert network.fee_rate_default == 7


def test_a_network_of_trons_family() -> None:
    address = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
    usdt = {"contract": address, "decimals": 6}
    found = read({"networks": {"tron": tron(tokens={"USDT": usdt}, finality="finalized", chain="tron")}})
    network = found.networks["tron"].network
    assert (network.family, network.chain, network.native.symbol) == ("tron", "728126428", "TRX")
    assert network.requirement.finality is Finality.FINALIZED
    assert network.tokens[0].contract == "0xa614f803b6fd780986a42c78ec9c7f77e6ded13c"
    assert (network.has_accounts, found.networks["tron"].mempool) == (False, False)
    by_rpc = tron(chain_id=31337, api="jsonrpc", requests_per_second=50, tokens={"USDT": usdt})
    stand_in = read({"networks": {"t": by_rpc}})
    assert not stand_in.networks["t"].network.tells_native
    assert stand_in.networks["t"].settings == TronSettings(31337, "jsonrpc", 50)
    nile = read({"networks": {"t": tron(chain="tron-nile")}}).networks["t"]
    assert nile.network.chain == "3448148188"


@pytest.mark.parametrize(
    ("network_of_kind", "words"),
    [
        (bitcoin(chain="dogecoin"), "must be one of bitcoin, bitcoin-testnet4"),
        ({"kind": "bitcoin", "rpc": ["http://x"]}, "chain: is missing"),
        (bitcoin(chain_id=1), "There is no setting"),
        (bitcoin(finality="finalized"), "is not what chains of this kind have"),
        (bitcoin(tokens={"USDT": {"contract": "x", "decimals": 6}}), "there are no tokens"),
        (bitcoin(native={"symbol": "LTC", "decimals": 18}), "decimals: is 8"),
        (bitcoin(rpc_cookie_file="cookie"), "whole path"),
        (bitcoin(zmq=["127.0.0.1:28332"]), "zmq: address 1"),
        (bitcoin(zmq=["ipc:///" + "a" * 107]), "zmq: address 1"),
        (bitcoin(zmq=["tcp://user:secret@127.0.0.1:28332"]), "zmq: address 1"),
        (bitcoin(zero_conf_limit="a lot"), "zero_conf_limit: must be an amount of LTC"),
        (bitcoin(zero_conf_limit="0.000000001"), "zero_conf_limit: must be an amount of LTC"),
        (bitcoin(fee_rate_default=0), "fee_rate_default: must lie between"),
        (bitcoin(genesis_hash="0x1"), "64 hexadecimal digits"),
        (bitcoin(traces="off"), "There is no setting"),
        (tron(chain="bitcoin"), "must be one of tron, tron-nile"),
        (tron(chain="tron", chain_id=1), "has no meaning beside chain"),
        (tron(api="grpc"), "must be one of http, jsonrpc"),
        (tron(mempool=True), "There is no setting"),
        (tron(fee_rate_default=1), "There is no setting"),
        (tron(native={"symbol": "TRX", "decimals": 18}), "decimals: is 6"),
        (
            tron(tokens={"USDT": {"contract": "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6u", "decimals": 6}}),
            "contract:",
        ),
    ],
)
def test_other_kinds_are_checked_too(network_of_kind: dict[str, Any], words: str) -> None:
    said = problem({"networks": {"n": network_of_kind}})
    assert words in said
    assert "secret" not in said


def test_one_chain_is_one_network_in_every_family() -> None:
    assert "same chain" in problem({"networks": {"a": bitcoin(), "b": bitcoin()}})
    assert "same chain" in problem({"networks": {"a": tron(), "b": tron(chain_id=728126428)}})
    both = {"a": bitcoin(), "b": bitcoin(chain="bitcoin-regtest"), "c": tron(), "d": network()}
    assert len(read({"networks": both}).networks) == 4


@pytest.mark.parametrize("finality", ["safe", "finalized"])
def test_finality_instead_of_confirmations(finality: str) -> None:
    found = read(with_network(finality=finality)).networks["ethereum"]
    assert found.network.requirement.finality == finality


def test_two_sources_have_to_agree_where_there_are_three() -> None:
    assert read({"rates": {"sources": ["kraken", "coinbase", "binance"]}}).rates.min_sources == 2
    assert read({"rates": {"sources": ["static", "kraken", "coinbase"]}}).rates.min_sources == 1
    assert read({}).rates.sources == ("static",)


def test_rates_are_exact() -> None:
    found = read({"rates": {"sources": ["static"], "static": {"ETH/USD": "2500.10", "EUR/USD": "1.08"}}})
    assert found.rates.static == {"ETH/USD": Fraction(25001, 10), "EUR/USD": Fraction(27, 25)}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"listne": "x"}, "Did you mean 'listen'"),
    ({"log": {"levle": "info"}}, "Did you mean 'log.level'"),
    ({"network": {}}, "Did you mean 'networks'"),
    (with_network(rcp=["x"]), "Did you mean 'networks.ethereum.rpc'"),
    (
        with_network(tokens={"USDC": token(decimal=6)}),
        "Did you mean 'networks.ethereum.tokens.USDC.decimals'",
    ),
    ({"listen": "8420"}, "listen: "),
    ({"listen": "127.0.0.1:70000"}, "listen: "),
    ({"listen": 8420}, "listen: must be a text"),
    ({"public_url": "https://a.example/shop"}, "public_url: must be only"),
    ({"public_url": "ftp://a.example"}, "public_url: "),
    ({"public_url": "http://[broken"}, "public_url: "),
    ({"database_url": "mysql://x"}, "must begin with postgresql://"),
    ({"networks": {"Ethereum": network()}}, "a network's name"),
    ({"networks": {"a-b": network(), "a_b": network(chain_id=2)}}, "cannot be told from"),
    ({"networks": {"a": network(), "b": network()}}, "same chain"),
    (with_network(kind="lightning"), "must be one of evm, bitcoin, tron"),
    (with_network(kind="evn"), "must be one of evm"),
    ({"networks": {"a": {}}}, "networks.a.kind: is missing"),
    (with_network(chain_id="1"), "must be a whole number"),
    (with_network(chain_id=True), "must be a whole number"),
    (with_network(chain_id=0), "must lie between"),
    (with_network(rpc=[]), "names no node"),
    (with_network(rpc=["127.0.0.1:8545"]), "node 1 must be"),
    (with_network(rpc=["http://a", "ws://b"]), "node 2 must be"),
    (with_network(rpc=["http://a", "http://a"]), "twice"),
    (with_network(finality="depth", confirmations=0), "must lie between"),
    (with_network(finality="safe", confirmations=3), "no meaning"),
    (with_network(finality="soon"), "must be one of"),
    (with_network(finality="safe", finality_tags=False), "needs finality_tags"),
    (with_network(confirmations=20, safety_depth=10), "less than the confirmations"),
    (with_network(start_height="tail"), "start_height"),
    (with_network(start_height=-1), "must lie between"),
    (with_network(genesis_hash="0x12"), "64 hexadecimal"),
    (with_network(native={"symbol": "USD", "decimals": 18}), "ISO 4217"),
    (with_network(native={"symbol": "ETH", "decimals": 37}), "must lie between"),
    (with_network(native={"symbol": "ETH"}), "decimals: is missing"),
    (with_network(native={"symbol": "E/T", "decimals": 18}), "a symbol is"),
    (with_network(tokens={"eur": token()}), "ISO 4217"),
    (with_network(tokens={"eth": token()}), "already taken"),
    (with_network(tokens={"A": token(), "B": token(contract=CONTRACT.lower())}), "already the contract of A"),
    (with_network(tokens={"A": token(contract=CONTRACT.replace("A0b", "a0B"))}), "EIP-55"),
    (with_network(tokens={"A": token(contract="0x" + "0" * 40)}), "zero address"),
    (with_network(tokens={"A": token(contract="0x12")}), "40 hexadecimal"),
    (with_network(tokens={"A": token(par="USDC")}), "ISO 4217"),
    (with_network(tokens={"A": token(quote_decimals=7)}), "must lie between"),
    (with_network(tokens=["A"]), "must be a table"),
    ({"rates": {"sources": ["krakken"]}}, "number 1 is no source"),
    ({"rates": {"sources": ["../kraken"]}}, "number 1 is no source"),
    ({"rates": {"sources": ["kraken", "kraken"]}}, "twice"),
    ({"rates": {"sources": []}}, "1 to 16 sources"),
    ({"rates": {"sources": ["kraken"], "static": {"ETH/USD": "1"}}}, "not among the sources"),
    ({"rates": {"sources": ["kraken"], "min_sources": 2}}, "between 1 and 1"),
    ({"rates": {"outlier_bps": 0}}, "between 1 and 5000"),
    ({"rates": {"pivots": ["US D"]}}, "list of symbols"),
    ({"rates": {"pegs": {"USD": "USD"}}}, "two different symbols"),
    ({"rates": {"pegs": {"A": "B", "B": "C"}}}, "stands for another itself"),
    ({"rates": {"urls": {"krakken": "https://x.example"}}}, "no such exchange"),
    ({"rates": {"urls": {"kraken": "ftp://x.example"}}}, "http"),
    ({"rates": {"static": {"ETH/USD": 2500.0}}}, "must be a text"),
    ({"rates": {"static": {"ETH/USD": "0"}}}, "positive decimal"),
    ({"rates": {"static": {"ETH/USD": "1e3"}}}, "positive decimal"),
    ({"rates": {"static": {"ETHUSD": "1"}}}, "two different symbols"),
    ({"rates": {"static": {"ETH/USD": "2", "USD/ETH": "0.5"}}}, "both directions"),
    ({"webhooks": {"allow_private_targets": "yes"}}, "true or false"),
    ({"server": {"stop_seconds_max": 0}}, "must lie between"),
    ({"data_dir": "a\x00b"}, "cannot be printed"),
    ({"data_dir": "~nobody-of-that-name/x"}, "does not exist"),
]


@pytest.mark.parametrize(("document", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        from_document(document, environment={})
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TALLYSTICK_LISTEN": "[::1]:99"}, lambda c: (c.host, c.port) == ("::1", 99)),
        ({"TALLYSTICK_LISTEN": "[::1]:99"}, lambda c: c.url_on(99) == "http://[::1]:99"),
        ({"TALLYSTICK_LISTEN": "0.0.0.0:99"}, lambda c: c.url_on(99) == "http://127.0.0.1:99"),
        ({"TALLYSTICK_PUBLIC_URL": "https://pay.example/"}, lambda c: c.url_on(1) == "https://pay.example"),
        ({"TALLYSTICK_DATABASE_URL": "postgres://h/d"}, lambda c: c.database_url == "postgres://h/d"),
        ({"TALLYSTICK_DATABASE_URL": ""}, lambda c: c.database_url is None),
        ({"TALLYSTICK_LOG__LEVEL": "debug"}, lambda c: c.log.level == "debug"),
        ({"TALLYSTICK_WEBHOOKS__ALLOW_PRIVATE_TARGETS": "true"}, lambda c: c.webhooks.allow_private_targets),
        ({"TALLYSTICK_RATES__STATIC__ETH_USD": "2"}, lambda c: c.rates.static == {"ETH/USD": 2}),
        ({"TALLYSTICK_RATES__SOURCES": "kraken,okx"}, lambda c: c.rates.exchanges == ("kraken", "okx")),
        ({"TALLYSTICK_RATES__PEGS__USDT": "USD"}, lambda c: c.rates.pegs == {"USDT": "USD"}),
        (
            {"TALLYSTICK_NETWORKS__A_B__SAFETY_DEPTH": "99"},
            lambda c: c.networks["a-b"].network.safety_depth == 99,
        ),
        ({"TALLYSTICK_NETWORKS__A_B__START_HEIGHT": "99"}, lambda c: c.networks["a-b"].start_height == 99),
        (
            {"TALLYSTICK_NETWORKS__A_B__RPC": "http://x, http://y"},
            lambda c: c.networks["a-b"].rpc[1] == "http://y",
        ),
        ({"TALLYSTICK_NETWORKS__A_B__RPC": '["http://x"]'}, lambda c: c.networks["a-b"].rpc == ("http://x",)),
        (
            {
                "TALLYSTICK_NETWORKS__A_B__TOKENS__USDC__CONTRACT": CONTRACT,
                "TALLYSTICK_NETWORKS__A_B__TOKENS__USDC__DECIMALS": "6",
            },
            lambda c: c.networks["a-b"].network.tokens[0].symbol == "USDC",
        ),
        ({"TALLYSTICK_PORT": "tcp://10.0.0.1:80", "TALLYSTICK_NO_SKIP": "1"}, lambda c: c.port == 8420),
    ],
    # A function has no name that two test processes agree on; pytest numbers those by itself.
    ids=lambda value: "expected" if callable(value) else str(value)[:60],
)
def test_the_environment_overrides(variables: dict[str, str], expected: Any) -> None:
    assert expected(read({"networks": {"a-b": network()}}, **variables))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TALLYSTICK_DATABSE_URL": "x"}, "TALLYSTICK_DATABASE_URL"),
        ({"TALLYSTICK_LISTN": "x"}, "TALLYSTICK_LISTEN"),
        ({"TALLYSTICK_LOG__LEVLE": "debug"}, "log.level"),
        ({"TALLYSTICK_LOG__LEVEL": "loud"}, "TALLYSTICK_LOG__LEVEL"),
        ({"TALLYSTICK_LOG__": "x"}, "TALLYSTICK_LOG__"),
        ({"TALLYSTICK_LISTEN__PORT": "1"}, "is a value, not a table"),
        ({"TALLYSTICK_SERVER__STOP_SECONDS_MAX": "soon"}, "TALLYSTICK_SERVER__STOP_SECONDS_MAX"),
        ({"TALLYSTICK_NETWORKS__A__RPC": "[1]"}, "list of texts"),
        ({"TALLYSTICK_NETWORKS__A__RPC": "[" * 100_000}, "JSON list"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_wrong_variables_are_named(variables: dict[str, str], words: str) -> None:
    assert words in problem({"listen": "127.0.0.1:1", "networks": {"a": network()}}, **variables)


def test_credentials_are_neither_shown_nor_repeated() -> None:
    secret = "hunter2hunter2"
    url = f"http://user:{secret}@127.0.0.1:8545"
    found = read(with_network(rpc=[url]) | {"database_url": f"postgresql://u:{secret}@h/d"})
    assert secret not in repr(found)
    for document in (
        with_network(rpc=[f"ftp://user:{secret}@h"]),
        {"database_url": f"mysql://u:{secret}@h/d"},
        with_network(rpc=url),
        with_network(rpc=[url, url]),
    ):
        assert secret not in problem(document)


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tallystick.toml"
    file.write_text('data_dir = "data"\nlisten = "127.0.0.1:1"\n')
    found = load(file, {})
    assert found.data_dir == tmp_path / "data"
    assert load(None, {"TALLYSTICK_CONFIG": str(file)}) == found
    assert load(file, {"TALLYSTICK_LISTEN": "127.0.0.1:2"}).port == 2


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"a = ",
        b"a = [" + b"[" * 100_000,
        b"a = " + b"9" * 10_000,
        b"x" * (2 << 20),
        b"a=2000-13-45",
    ],
    ids=["not text", "cut off", "deep", "huge number", "huge file", "no date"],
)
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError):
        load(file, DATA_DIR)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "none.toml", {})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path, {})


KEYS = st.sampled_from(
    [
        *("listen", "data_dir", "public_url", "networks", "rates", "log", "server", "webhooks"),
        *("ethereum", "rpc", "kind", "native", "tokens", "chain_id", "symbol", "decimals", "contract"),
        *(
            "sources",
            "static",
            "ETH/USD",
            "level",
            "x",
            "chain",
            "api",
            "zmq",
            "rpc_cookie_file",
            "zero_conf_limit",
        ),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "evm",
            "bitcoin",
            "tron",
            "litecoin",
            "ETH",
            "http://x",
            "127.0.0.1:1",
            CONTRACT,
            "static",
            "head",
            "debug",
        ]
    )
    | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(document=st.dictionaries(KEYS | st.text(max_size=8), VALUES, max_size=5))
def test_nonsense_is_nothing_but_a_configuration_error(document: dict[str, Any]) -> None:
    try:
        found = from_document(document, environment=DATA_DIR)
    except ConfigurationError:
        return
    assert isinstance(found, Config)


@given(
    changes=st.dictionaries(
        st.sampled_from(
            [*sorted(network()), "tokens", "finality", "confirmations", "safety_depth", "start_height"]
        ),
        VALUES,
        max_size=3,
    )
)
def test_nonsense_inside_a_network_is_nothing_but_a_configuration_error(changes: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigurationError):
        read(with_network(**changes))


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_are_nothing_but_a_configuration_error(content: bytes) -> None:
    from tallystick.config_reader import parse

    with contextlib.suppress(ConfigurationError):
        from_document(parse(content, origin="x"), environment=DATA_DIR)


@given(
    levels=st.lists(st.text("ABCDEFGHINPRSTW_0", max_size=12), min_size=1, max_size=5),
    value=st.text(max_size=20),
)
def test_variables_are_nothing_but_a_configuration_error(levels: list[str], value: str) -> None:
    with contextlib.suppress(ConfigurationError):
        read(with_network(), **{"TALLYSTICK_" + "__".join(levels): value})


def test_every_key_has_a_variable() -> None:
    assert environment_form("ETH/USD") == "ETH_USD"
    assert environment_form("a-b") == "A_B"
    assert config.DEFAULT_LISTEN in default_text()

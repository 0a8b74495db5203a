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


def test_the_commented_file_names_every_key_that_exists() -> None:
    """Uncommented, it is a valid configuration; and every field of the dataclasses is in it."""
    lines = []
    for line in default_text().splitlines():
        bare = line.removeprefix("# ").removeprefix("#").strip()
        is_example = line.startswith("#") and (bare.startswith("[") or " = " in bare.split("#")[0])
        lines.append(bare if is_example and not bare[:1].isupper() else line)
    text = "\n".join(lines).replace("0x…", "0x" + "ab" * 32)
    document = tomllib.loads(text)
    found = from_document(document, environment={})
    assert found.networks["ethereum"].network.pegs == {CONTRACT.lower(): "USD"}
    assert found.rates.static["ETH/USD"] == 2500
    named = set(document["networks"]["ethereum"])
    fields = {"rpc", "poll_interval_ms", "start_height", "batch_blocks", "stale_after_seconds"}
    fields |= {
        "request_timeout_seconds",
        "genesis_hash",
        "finality_tags",
        "blooms",
        "traces",
        "mempool",
        "chain_id",
    }
    assert named == fields | {"kind", "native", "confirmations", "finality", "safety_depth", "tokens"}


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
    (with_network(kind="evn"), 'must be one of evm'),
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
        *("sources", "static", "ETH/USD", "level", "x"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["evm", "ETH", "http://x", "127.0.0.1:1", CONTRACT, "static", "head", "debug"])
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

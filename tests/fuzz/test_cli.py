"""The command line with nonsense behind every command: one line that says what is wrong, exit code 1 or 2.

In this process, on a database of its own. Never a traceback, never "something unexpected", nothing of a private key
repeated. Commands that go on for ever are given what they refuse.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import structlog

from tallystick.cli import _run
from tests.fuzz.effort import SECONDS, seeds
from tests.fuzz.mutations import ODD_TEXTS
from tests.fuzz.test_texts import SECRETS

# Without words for what is required; each is completed with nonsense. `…` is where a text of the user's stands.
COMMANDS = (
    ("merchant", "create", "--name", "…"),
    ("merchant", "set", "--merchant", "…", "--spread-bps", "…"),
    ("merchant", "set", "--merchant", "…", "--quote-seconds", "…"),
    ("key", "create", "--merchant", "…", "--scopes", "…"),
    ("wallet", "add", "--merchant", "…", "--account-key", "…"),
    ("wallet", "add", "--merchant", "…", "--account-key", "…", "--family", "…", "--label", "…"),
    ("invoice", "show", "…"),
    ("invoice", "check", "…"),
    ("exception", "list", "--merchant", "…", "--status", "…"),
    ("exception", "show", "…"),
    ("exception", "resolve", "…", "--action", "…", "--note", "…"),
    ("exception", "resolve", "…", "--action", "refund", "--note", "n", "--address", "…"),
    ("exception", "assign", "…", "--owner", "…"),
    ("refund", "list", "--merchant", "…"),
    ("refund", "show", "…"),
    ("refund", "approve", "…", "--note", "…"),
    ("refund", "reject", "…"),
    ("refund", "link", "…"),
    ("dispute", "open", "…", "--reason", "…", "--note", "…", "--evidence", "…"),
    ("dispute", "resolve", "…", "--outcome", "…", "--note", "…"),
    ("trace", "…"),
    ("network", "resume", "…"),
    ("network", "raise", "…", "--confirmations", "…", "--note", "…"),
    ("network", "lift", "…"),
    ("watch", "…"),
    ("up", "--port", "…"),
    ("up", "--listen", "…"),
    ("api", "…", "…"),
    ("deliver", "…"),
    ("jobs", "…"),
    ("demo", "--port", "…x"),
    ("migrate", "…"),
    ("doctor", "…"),
    ("simulate", "--seed", "…x"),
    ("simulate", "--steps", "…x"),
    ("…",),
    ("…", "…"),
    ("--config", "…", "migrate"),
)
TEXTS = (
    *(text.replace("\0", "") for text in ODD_TEXTS if len(text) < 5_000),
    *(secret for secret in SECRETS),
    "--",
    "-",
    "--json",
    "--debug=1",
    "--help=no",
    "-x",
    "--x=y",
    "=",
    "a=b",
    "\udcff",
    "\udc80abc",
    "\n",
    "\x1b[2J",
    "’",
    "%s",
    "{}",
    "~",
    "..",
    "mer_" + "0" * 26,
    "inv_" + "0" * 26,
    "exc_" + "0" * 26,
    "rfd_" + "0" * 26,
    "0x" + "00" * 32,
    "evm",
    "accept",
    "merchant",
    "ethereum",
    "1",
    "-1",
    "99999999999999999999",
    "1e3",
    "0x10",
    "/dev/null/x",
    "/proc/self/mem",
    "[" * 50,
)


@pytest.fixture
def own_database(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTICK_DATABASE_URL", database_url)
    monkeypatch.setenv("TALLYSTICK_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", ["\udcff", "a\n\x1b[2J", "\x7f"])
def test_what_is_no_text_is_refused_before_it_is_used(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are no UTF-8 went as far as the database, whose driver raised a DataError."""
    assert _run(["exception", "show", text]) == 1
    assert capsys.readouterr().err.startswith("tallystick: Arguments are text")


@pytest.mark.usefixtures("own_database")
def test_nonsense_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    refused = 0
    for number in seeds(4 * len(COMMANDS)):
        chance = random.Random(number)
        command = COMMANDS[number % len(COMMANDS)]
        arguments = [word.replace("…", chance.choice(TEXTS)) for word in command]
        if chance.random() < 0.2:
            arguments.insert(chance.randrange(len(arguments) + 1), chance.choice(TEXTS))
        code = _run(arguments)
        out, err = capsys.readouterr()
        assert code in (0, 1, 2), (arguments, code)
        assert "Traceback" not in out + err, arguments
        assert "unexpected" not in err, (arguments, err)
        if code:
            refused += 1
            assert out == "", arguments
            assert err.startswith("tallystick: "), (arguments, err)
            assert err.count("\n") == 1, (arguments, err)
            assert len(err) < 3_000, arguments
            if "--account-key" in arguments[:-1]:
                given = arguments[arguments.index("--account-key") + 1]
                assert given not in SECRETS or given[4:16] not in err, err
    assert SECONDS or refused > 2 * len(COMMANDS)
    structlog.reset_defaults()

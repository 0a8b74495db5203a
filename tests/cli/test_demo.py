"""The demo as a visitor meets it: one payment from start to end, then it waits for them; nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.cli.processes import DEADLINE_SECONDS, SCRIPT, environment, family, gone, run

pytestmark = pytest.mark.chain


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary folders, which PostgreSQL's user can pass through, too."""
    folder = Path(tempfile.mkdtemp(prefix="ts-demo-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_once_shows_a_paid_invoice_and_leaves_nothing_behind(scratch: Path) -> None:
    done = await run("demo", "--once", "--json", "--port", "0", TMPDIR=str(scratch))
    assert done.code == 0, done.err
    shown = done.object
    assert shown["status"] == "paid"
    # Whether somebody looks between the payment and its block is a matter of luck.
    way = [status for status in shown["transitions"] if status != "detected"]
    assert way == ["created", "quoted", "awaiting_payment", "confirming", "paid"]
    assert {"invoice.created", "payment.detected", "invoice.paid"} <= set(shown["webhooks_verified"])
    for words in (
        "confirming → paid (policy_met)",
        "3 confirmations",
        "signature verified",
        shown["tx_hash"][:18],
    ):
        assert words in done.err
    assert list(scratch.iterdir()) == []


async def test_it_stays_up_pays_on_enter_and_ends_with_ctrl_c(scratch: Path) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        SCRIPT,
        "demo",
        "--port",
        "0",
        env=environment({"TMPDIR": str(scratch)}),
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
    )
    os.close(theirs)
    try:
        text = await _read_until(process, "Your turn")
        text += await _read_until(process, "Ctrl-C ends the demo")
        everything = family(process.pid)
        assert {"anvil", "postgres"} <= {_name(one) for one in everything}
        invoice_url = next(word for word in text.split() if "/v1/invoices/" in word)
        key = next(word.removeprefix("KEY=") for word in text.split() if word.startswith("KEY="))
        assert await _status(invoice_url, key) == "quoted"
        os.write(ours, b"\n")
        await _read_until(process, "confirming → paid")
        assert await _status(invoice_url, key) == "paid"
        await _read_until(process, "Your turn")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await process.wait() == 0
        await gone(everything)
        assert list(scratch.iterdir()) == []
    finally:
        os.close(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_is_missing_is_said_with_what_to_do(scratch: Path) -> None:
    done = await run("demo", "--once", TALLYSTICK_ANVIL=str(scratch / "none"))
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "make run" in done.err


async def _read_until(process: asyncio.subprocess.Process, words: str) -> str:
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while words not in text:
            line = await process.stdout.readline()
            assert line, f"the demo ended: {text}"
            text += line.decode()
    return text


async def _status(url: str, key: str) -> str:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(url) as response:
        return str((await response.json())["status"])


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""

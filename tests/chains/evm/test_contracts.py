"""The committed contracts are what their sources compile to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.contracts.compile import DEMO_FOLDER, TEST_FOLDER, compile_folder


@pytest.mark.parametrize("folder", [DEMO_FOLDER, TEST_FOLDER], ids=["demo", "tests"])
def test_compiling_again_gives_the_committed_files(folder: Path) -> None:
    compiled = compile_folder(folder)
    committed = {path.name: path.read_text() for path in folder.glob("*.json")}
    assert compiled == committed
    assert compiled
    assert all(json.loads(text)["compiler"].startswith("0.8.37+") for text in compiled.values())

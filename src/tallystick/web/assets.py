"""The page's own files (style, script, sign), served from memory under names that contain their content's hash.

For: the checkout page. Holds true: a name never changes its content, so browsers may keep it for good; nothing outside
the package's `static` folder can be asked for. Must not: read files while answering.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

PREFIX: Final = "/static/checkout"
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: where it is served, and its bytes plain and compressed."""

    path: str
    media_type: str
    content: bytes
    compressed: bytes


@cache
def assets() -> dict[str, Asset]:
    """All files by their name in the folder, such as `checkout.css`."""
    found: dict[str, Asset] = {}
    for entry in sorted(
        resources.files(__package__).joinpath("static").iterdir(), key=lambda entry: entry.name
    ):
        stem, _, extension = entry.name.rpartition(".")
        if extension in _TYPES:
            content = entry.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:12]
            path = f"{PREFIX}/{stem}.{digest}.{extension}"
            found[entry.name] = Asset(path, _TYPES[extension], content, gzip.compress(content, mtime=0))
    return found


@cache
def by_path() -> dict[str, Asset]:
    """The same by the last part of their address."""
    return {asset.path.rpartition("/")[2]: asset for asset in assets().values()}

"""Which exchanges there are. Apart from `rates.exchange`, so that checking the configuration loads nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Final

_ID: Final = re.compile(r"[a-z][a-z0-9]{1,30}", re.ASCII)


def is_exchange(name: str) -> bool:
    """Whether ccxt has an exchange of this id. Looks for its file only: nothing is imported."""
    found = importlib.util.find_spec("ccxt") if _ID.fullmatch(name) else None
    if found is None or found.origin is None:
        return False
    return (Path(found.origin).parent / "async_support" / f"{name}.py").is_file()

"""The local chain for tests: the demo's own launcher, with a chain id that no other test uses at the same time."""

from __future__ import annotations

import itertools
import os

from tallystick.demo.anvil import Anvil, LocalChainError, find_anvil, free_port, start_anvil

__all__ = ["Anvil", "LocalChainError", "find_anvil", "free_port", "start_anvil", "unique_chain_id"]

_counter = itertools.count(1)


def unique_chain_id() -> int:
    """A chain id for one test: unlike those of other tests and of other test processes on this machine."""
    return 1_000_000_000 + os.getpid() * 1_000 + next(_counter)

"""Starts helper programs (a database server, a local chain) that do not outlive the process that started them.

Holds true: on Linux the kernel signals the program when its starter dies, even by SIGKILL, because an orphaned server
would hold a data folder or a port. The program gives up root before anything else where another account is wanted.
Must not: use a shell, or `preexec_fn`, which is not safe in a process with threads.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# A small program between us and the helper, which it then becomes. The death signal is asked for after the change of
# user, which would clear it (prctl(2)); a starter that died before that is noticed by the changed parent.
LAUNCHER = """
import ctypes, os, sys
uid, gid, parent, when_parent_dies = map(int, sys.argv[1:5])
if os.geteuid() != uid:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, when_parent_dies, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the starter has died")
os.execv(sys.argv[5], sys.argv[5:])
"""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the operating system that runs a program."""

    uid: int
    gid: int
    name: str


def bound_to_us(
    command: Sequence[str], *, account: Account | None = None, when_parent_dies: signal.Signals
) -> list[str]:
    """The argument list that runs `command` (its program by absolute path) for as long as the calling thread lives.

    Linux watches the thread that starts the program, not the process: start it from one that stays. The process id
    is the program's own.
    """
    uid, gid = (os.geteuid(), os.getegid()) if account is None else (account.uid, account.gid)
    who = [str(uid), str(gid), str(os.getpid()), str(int(when_parent_dies))]
    return [sys.executable, "-I", "-S", "-c", LAUNCHER, *who, *command]

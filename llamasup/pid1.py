"""The duties of a container's first process: it reaps the orphans that the kernel gives to it.

Signals need not be passed on: a stop of llamasup stops its children.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import trio

_OWNERS_TURN = 1.0
"""Seconds after which a zombie counts as an orphan. trio waits for its own processes at once, and
needs their exit status."""


async def reap_orphans() -> None:
    """Reap until cancelled. Only process 1 is given orphans."""
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        async for _ in signals:
            before = zombies()
            await trio.sleep(_OWNERS_TURN)
            for pid in zombies() & before:
                with suppress(ChildProcessError):  # trio was faster
                    os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  it never waits for a zombie


def zombies() -> set[int]:
    """The pids of our children that have ended and were not waited for, as far as can be seen."""
    children = _text(Path(f"/proc/self/task/{os.getpid()}/children")).split()
    return {int(child) for child in children if _is_zombie(child)}


def _is_zombie(pid: str) -> bool:
    # The state follows the last ")". The process's name before it may hold anything, also a ")".
    return _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] == ["Z"]


def _text(file: Path) -> str:
    """What the file says; "" if its process is gone, or no descriptor is free."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""

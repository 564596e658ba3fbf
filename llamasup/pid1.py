"""The duties of a container's first process: to reap the orphans that end up with it.

Signals need no forwarding: a stop of llamasup stops its children.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import trio

_OWNERS_TURN = 1.0
"""Seconds after which a zombie that nobody has waited for is an orphan's. trio waits for its own
at once, and must not be robbed of their exit status."""


async def reap_orphans() -> None:
    """Reap until cancelled. For process 1; nothing ends up with another."""
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        async for _ in signals:
            before = zombies()
            await trio.sleep(_OWNERS_TURN)
            for pid in zombies() & before:
                with suppress(ChildProcessError):  # somebody came at last
                    os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  it never waits for a zombie


def zombies() -> set[int]:
    """Our children that have ended and were not waited for, as far as that can be seen."""
    children = _text(Path(f"/proc/self/task/{os.getpid()}/children")).split()
    return {int(child) for child in children if _is_zombie(child)}


def _is_zombie(pid: str) -> bool:
    # The name before the last ")" may hold anything.
    return _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] == ["Z"]


def _text(file: Path) -> str:
    """Nothing of a process that is gone, or where we lack a descriptor to look."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""

"""Runs programs for their answers: starts them, and reads all that they write.

trio.run_process waits for its process even when it is cancelled. A program that hangs in a driver
does not even die of KILL, so a time limit around that call would have no effect. Here such a
program is left behind, and not started again while it is still there: it would only hang again.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence

from attrs import frozen

from llamasup.processes.process import Process

log = logging.getLogger(__name__)

_DEATH_PATIENCE = 2.0

_undead: dict[tuple[str, ...], Process] = {}
"""Programs that were killed and are still there, by their command lines."""


class StillRunning(Exception):
    """The same command was run before, did not end, and still runs."""


@frozen
class Outcome:
    """How a program ended, and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


async def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a command to its end. Raises OSError if it cannot be started, and StillRunning.

    If this is cancelled, the program is killed with its children; if it does not die, it is left
    behind.
    """
    words = tuple(command)
    _reap()
    if words in _undead:
        raise StillRunning(f"{shlex.join(words)} was given up, and has not ended yet")
    process = await Process.start(words, environment)
    stdout, stderr = _Words(), _Words()
    try:
        await process.hear(stdout, stderr)
        status = await process.wait()
    except BaseException:
        if not await process.kill(_DEATH_PATIENCE):
            log.warning("%s does not die, and is left as it is", shlex.join(words))
            _undead[words] = process
        raise
    return Outcome(status, bytes(stdout.heard), bytes(stderr.heard))


class _Words:
    """All that a program writes to one output."""

    def __init__(self) -> None:
        self.heard = bytearray()

    def feed(self, data: bytes) -> None:
        self.heard += data

    def end(self) -> None:
        pass


def _reap() -> None:
    for words, process in list(_undead.items()):
        if process.status is not None:
            del _undead[words]

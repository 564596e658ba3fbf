"""Programs that are asked something: started, heard to their end, and ended as a group.

trio.run_process waits for its process even when it is cancelled. One that hangs in a driver does
not die, of KILL neither, and no patience around it would count. Ours is then left as it is, and
not started again while it is there: it would hang likewise.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

import trio
from attrs import frozen

from llamasup.shortages import no_thread_as_shortage

log = logging.getLogger(__name__)

_DEATH_PATIENCE = 2.0

_undead: dict[tuple[str, ...], trio.Process] = {}
"""Killed, and still there, by their command lines."""


class StillRunning(Exception):
    """The same command was given up before, and has not ended since."""


@frozen
class Outcome:
    """How it ended, and what it said."""

    status: int
    stdout: bytes
    stderr: bytes


async def start(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    stdin: int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
) -> trio.Process:
    """Start it, its stdout to be read, in a session of its own: Ctrl-C in our terminal is not for
    it. Raises OSError, also for want of a thread. Cancelled, it is started all the same.
    """
    with no_thread_as_shortage():
        return await trio.lowlevel.open_process(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )


async def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Outcome:
    """Run it to its end. Raises OSError if it cannot be started, and StillRunning.

    Cancelled, it is killed together with its children, and left alone if it does not die of that.
    """
    words = tuple(command)
    _reap()
    if words in _undead:
        raise StillRunning(f"{shlex.join(words)} was given up, and has not ended yet")
    process = await start(words, environment)
    stdout, stderr = bytearray(), bytearray()
    assert process.stdout is not None  # we asked for them
    assert process.stderr is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, process.stdout, stdout)
            nursery.start_soon(_read, process.stderr, stderr)
        status = await process.wait()
    except BaseException:
        await _end(process, words)
        raise
    return Outcome(status, bytes(stdout), bytes(stderr))


def signal_group(process: trio.Process, number: signal.Signals) -> None:
    """Signal a process that was started in a session of its own, and all that it has started."""
    # Of a group of zombies Linux says that it is not there, and macOS that it may not be signalled.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _read(pipe: trio.abc.ReceiveStream, said: bytearray) -> None:
    async with pipe:
        async for data in pipe:
            said += data


async def _end(process: trio.Process, words: tuple[str, ...]) -> None:
    signal_group(process, signal.SIGKILL)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _DEATH_PATIENCE):
        await process.wait()
        return
    log.warning("%s does not die, and is left as it is", shlex.join(words))
    _undead[words] = process


def _reap() -> None:
    for words, process in list(_undead.items()):
        if process.poll() is not None:
            del _undead[words]

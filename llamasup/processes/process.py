"""One process that we start: how it is started, read, signalled and ended.

It has a session of its own: Ctrl-C in our terminal does not reach it, and a signal of ours goes to
its whole group, with all that it has started.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import trio

from llamasup.processes.lifeline import Lifeline
from llamasup.shortages import no_thread_as_shortage

log = logging.getLogger(__name__)

_READ_SIZE = 8 << 10
_PIPE_PATIENCE = 0.5
KILL_PATIENCE = 30.0
"""Seconds for which a killed process is waited for. One that hangs in a driver does not die."""


class Listener(Protocol):
    """Gets what a process writes to one of its outputs."""

    def feed(self, data: bytes) -> None:
        """The process wrote this next."""

    def end(self) -> None:
        """The output has ended."""


class Process:
    """A process that we have started, and all that it has started itself."""

    def __init__(self, process: trio.Process, lifeline: Lifeline, name: str) -> None:
        self.name = name
        self._process = process
        self._lifeline = lifeline
        self._hearing = trio.CancelScope(shield=True)
        self._heard_out = trio.Event()

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        lifeline: Lifeline | None = None,
        stderr: int = subprocess.PIPE,
        name: str = "",
    ) -> Process:
        """Start a process, tied to the lifeline if there is one; else its stdin is empty.

        Raises OSError, also for want of a thread. If this is cancelled, the process is started all
        the same.
        """
        held = lifeline or Lifeline()
        try:
            with no_thread_as_shortage():
                process = await trio.lowlevel.open_process(
                    command,
                    stdin=held.made() if lifeline else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=environment,
                    start_new_session=True,
                )
        except BaseException:
            held.let_go()
            raise
        if lifeline:
            lifeline.tie(process.pid)
        return cls(process, held, name or command[0])

    @property
    def pid(self) -> int:
        """The number of the process, of its group and of its session."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status; None if the process is still there."""
        return self._process.returncode

    @property
    def outputs(self) -> list[trio.abc.ReceiveStream]:
        """The process's stdout, and its stderr if that is a pipe."""
        return [pipe for pipe in (self._process.stdout, self._process.stderr) if pipe is not None]

    async def wait(self) -> int:
        """Wait for the end, and return the exit status. If cancelled, the process goes on."""
        return await self._process.wait()

    async def hear(self, *listeners: Listener) -> None:
        """Let each listener get one output, in the same order, to its end. Stops if cancelled."""
        async with trio.open_nursery() as nursery:
            for output, listener in zip(self.outputs, listeners, strict=True):
                nursery.start_soon(_hear, output, listener)

    async def hear_out(self, *listeners: Listener) -> None:
        """The same, but cancellation is ignored: a process cannot end while its pipe is full.

        `last_words` ends this.
        """
        with self._hearing:
            await self.hear(*listeners)
        self._heard_out.set()

    async def last_words(self) -> None:
        """To be called when the process has ended: returns when `hear_out` has read everything.

        If a pipe stays open for longer than a moment, another process that this one has started
        holds it. That is killed, and not read any more. Cancellation is ignored.
        """
        with trio.move_on_after(_PIPE_PATIENCE, shield=True):
            await self._heard_out.wait()
        if not self._heard_out.is_set():
            self.signal(signal.SIGKILL)
            self._hearing.cancel()
        self.let_go()

    def signal(self, number: signal.Signals) -> None:
        """Signal the process group. If it is gone, nothing happens."""
        # For a group of zombies Linux says that there is no such group, macOS that it is forbidden.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def loosen(self) -> None:
        """Untie the process: from now on it reads by itself that its stdin ends."""
        self._lifeline.loosen()

    def let_go(self) -> None:
        """End the process's stdin. That kills a process that is tied to us."""
        self._lifeline.let_go()

    async def stop(self, grace: float) -> None:
        """Send TERM to the group, end its stdin, and send KILL after `grace` seconds.

        Returns when the process is gone, or has outlived KILL for half a minute. Cancellation is
        ignored. The outputs have to be read meanwhile: a process that cannot write does not end.
        """
        self.loosen()
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_PATIENCE)):
            self.signal(number)
            # In child mode llama-server obeys TERM only if its stdin ends, too: in 7 ms, or never.
            self.let_go()
            with trio.move_on_after(patience, shield=True):
                await self.wait()
                return
            log.warning("%s: still there %g s after %s", self, patience, number.name)

    async def kill(self, patience: float = KILL_PATIENCE) -> bool:
        """Send KILL to the group at once, and stop reading. Is it gone within `patience` seconds?

        This is for processes that have nothing to lose. Cancellation is ignored meanwhile.
        """
        self.signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            with trio.move_on_after(patience):
                await self.wait()
            for output in self.outputs:
                await output.aclose()
        self.let_go()
        return self.status is not None

    def __str__(self) -> str:
        return f"{self.name}[{self.pid}]"


async def _hear(output: trio.abc.ReceiveStream, listener: Listener) -> None:
    async with output:
        try:
            while data := await output.receive_some(_READ_SIZE):
                listener.feed(bytes(data))
        finally:
            listener.end()

"""One running llama-server: started, listened to, waited for, stopped.

`run` is the incarnation's nursery. It owns the process, a pump for each of its two outputs, and
the wait for readiness; when it returns, all of them have ended.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

import trio
from attrs import frozen

from llamasup.children import probe
from llamasup.children.orphans import RunFolder
from llamasup.children.slots import Slots
from llamasup.config.addresses import Address, UnixAddress
from llamasup.config.schema import Seconds
from llamasup.engine.failures import explain
from llamasup.engine.loglines import Event, Line, Listening, LogReader, ModelLoaded, SlotsConfigured
from llamasup.errors import ModelUnavailable
from llamasup.states import ChildState, moved

log = logging.getLogger(__name__)

_TAIL = 400
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.25
_PROBE_PATIENCE = 2.0
_PIPE_PATIENCE = 0.5
_KILL_PATIENCE = 30.0
_SURVIVAL = 0.05
_READ_SIZE = 64 << 10


@frozen
class Launch:
    """All that it takes to start one child."""

    model: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    address: Address
    slots: int
    load_timeout: Seconds
    stop_grace: Seconds


class Child:
    """One incarnation. A child that is GONE does not come back; its keeper makes a new one."""

    def __init__(self, launch: Launch, run_folder: RunFolder) -> None:
        self.launch = launch
        self.state = ChildState.STARTING
        self.slots = Slots(launch.slots)
        self.users = 0
        """Requests that are being answered, whether or not they hold a slot."""

        self.pid: int | None = None
        self._run_folder = run_folder
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._life = trio.CancelScope()
        self._exited = trio.Event()
        self._gone = trio.Event()
        self._hint = trio.Event()
        self._last_word = 0.0
        self._pumps: set[trio.CancelScope] = set()
        self._pipes_empty = trio.Event()

    @property
    def address(self) -> Address:
        """Where it answers."""
        return self.launch.address

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start it, report `started` when it is ready, return when it is gone.

        Raises ModelUnavailable, in the engine's own words, if it never got ready. Cancelled, or
        told to `stop`, it ends the process (TERM, and after `stop_grace` KILL to its group), and
        returns only when that is done.
        """
        failure: ModelUnavailable | None = ModelUnavailable("it was stopped before it was ready")
        try:
            with self._life:
                process = await self._spawn()
                async with trio.open_nursery() as incarnation:
                    for pipe in (process.stdout, process.stderr):
                        assert pipe is not None  # we asked for them
                        incarnation.start_soon(self._pump, pipe)
                    incarnation.start_soon(self._until_gone, process)
                    self._run_folder.mark(process.pid)
                    failure = await self._until_ready(process)
                    if failure is None:
                        self.state = moved(self.state, ChildState.READY)
                        task_status.started()
                    else:
                        incarnation.cancel_scope.cancel()
        finally:
            self._clear_away()
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Begin to end it: nobody new is let in, and `run` returns when it is gone."""
        self._leave_service()
        self._life.cancel()

    async def survived(self) -> bool:
        """False if it dies within a moment: then what it closed was not meant to end."""
        with trio.move_on_after(_SURVIVAL):
            await self._exited.wait()
        return not self._exited.is_set()

    async def _spawn(self) -> trio.Process:
        try:
            process = await trio.lowlevel.open_process(
                self.launch.argv,
                # Held open: an engine in child mode ends when it closes, with us or after us.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.launch.environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ModelUnavailable(
                f"{self.launch.argv[0]} cannot be run: {error.strerror}"
            ) from error
        self.pid = process.pid
        self._last_word = trio.current_time()
        return process

    async def _until_gone(self, process: trio.Process) -> None:
        """Wait for the process to exit; cancelled, see to it. Bounded by grace and patience."""
        try:
            await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                self._leave_service()
                if process.returncode is None:
                    await self._end(process)
                self._exited.set()
                self._hint.set()
                await self._empty_pipes(process)
                self._gone.set()

    def _leave_service(self) -> None:
        if self.state in (ChildState.STARTING, ChildState.READY):
            self.state = moved(self.state, ChildState.STOPPING)
            self.slots.close()

    async def _end(self, process: trio.Process) -> None:
        for number, patience in (
            (signal.SIGTERM, self.launch.stop_grace),
            (signal.SIGKILL, _KILL_PATIENCE),
        ):
            _signal_group(process, number)
            # In child mode llama-server heeds TERM only when its stdin ends, too: 7 ms, else never.
            if process.stdin is not None:
                await process.stdin.aclose()
            with trio.move_on_after(patience):
                await process.wait()
                return
            log.warning("%s: still there %g s after %s", self, patience, number.name)

    async def _empty_pipes(self, process: trio.Process) -> None:
        """Let the pumps reach the last words.

        Who still holds a pipe when its process has exited is a grandchild, and gets little time.
        """
        with trio.move_on_after(_PIPE_PATIENCE):
            await self._pipes_empty.wait()
            return
        _signal_group(process, signal.SIGKILL)
        for pump in self._pumps:
            pump.cancel()

    def _clear_away(self) -> None:
        self.state = moved(self.state, ChildState.GONE)
        if self.pid is not None:
            self._run_folder.unmark(self.pid)
        if isinstance(self.address, UnixAddress):
            with suppress(OSError):
                os.unlink(self.address.path)

    async def _until_ready(self, process: trio.Process) -> ModelUnavailable | None:
        """Wait until it can answer; else why it never will.

        A line of the log is the hint to look, `/health` the proof. Engines whose lines we do not
        know are found out by looking anyway, ever more seldom.
        """
        pause = _FIRST_PAUSE
        while True:
            with trio.move_on_after(pause):
                await self._hint.wait()
            self._hint = trio.Event()
            if self._exited.is_set():
                await self._gone.wait()
                return ModelUnavailable(explain(process.returncode, list(self._tail)).words)
            # An answer is no proof once the process has ended: a stranger may have its port.
            if await self._is_healthy() and self.state is ChildState.STARTING:
                return None
            silence = trio.current_time() - self._last_word
            if silence > self.launch.load_timeout:
                return ModelUnavailable(f"nothing was heard of it for {silence:.0f} s of loading")
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _is_healthy(self) -> bool:
        """Does it answer, and with more than "still loading"? (Some forks know no /health.)"""
        with trio.move_on_after(_PROBE_PATIENCE), suppress(probe.NoAnswer):
            status, _ = await probe.ask(self.address, "/health")
            return status < 500
        return False

    async def _pump(self, pipe: trio.abc.ReceiveStream) -> None:
        """Read one output to its end, through cancellation too: an unread pipe blocks a stop."""
        reader = LogReader()
        with trio.CancelScope(shield=True) as pump:
            self._pumps.add(pump)
            async with pipe:
                while data := await pipe.receive_some(_READ_SIZE):
                    self._last_word = trio.current_time()
                    self._heed(reader.feed(bytes(data)))
            self._heed(reader.end())
        self._pumps.discard(pump)
        if not self._pumps:
            self._pipes_empty.set()

    def _heed(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Line):
                self._tail.append(event.text)
                log.debug("%s: %s", self, event.text)
            elif isinstance(event, Listening | ModelLoaded):
                self._hint.set()
            elif isinstance(event, SlotsConfigured):
                self.slots.resize(event.n_slots)

    def __str__(self) -> str:
        return f"{self.launch.model}[{self.pid}]"


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)

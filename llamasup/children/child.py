"""One running server, a llama-server or another: started, listened to, waited for, stopped.

`run` is the child's nursery. It owns the process, the hearing of its outputs, the wait for
readiness, then the watchdog. When it returns, all of them have ended, and `cause` says why the
child is gone.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property

import trio
from attrs import frozen

from llamasup import tending
from llamasup.children import effort, probe
from llamasup.children.autopsy import Autopsy
from llamasup.children.inquest import Inquest
from llamasup.children.listening import Listener, listener
from llamasup.children.log import Log
from llamasup.children.manners import LLAMA_SERVER, Manners
from llamasup.children.signs import Signs
from llamasup.children.slots import Slots
from llamasup.children.suspects import Accused
from llamasup.children.watchdog import watch
from llamasup.config.addresses import Address, TcpAddress, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Seconds
from llamasup.engine.failures import Cause, Kind
from llamasup.engine.loglines import (
    Event,
    FellAsleep,
    Line,
    Listening,
    LoadProgress,
    ModelLoaded,
    PromptProgress,
    SlotsConfigured,
)
from llamasup.errors import ModelUnavailable
from llamasup.memory.host import forget_peak, most_resident
from llamasup.processes.lifeline import Lifeline
from llamasup.processes.process import Process
from llamasup.processes.run_folder import RunFolder
from llamasup.shortages import is_shortage
from llamasup.states import ChildState, moved
from llamasup.upstream import Signature

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.25
_GRACE_OF_A_HUNG_CHILD = 0.5
_DEATH_PATIENCE = 0.05

_LOOKS_AT_EFFORT = 10
"""How often within `engine.load_timeout`."""

_DEATH_OF_A_LATECOMER = 3.0
"""Seconds within which a child ends that finds its port taken. If it has not, the program that
listens there does so for the child, as the port of a container is published."""


@frozen
class Launch:
    """All that it takes to start one child."""

    model: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    address: Address
    slots: int
    in_effect: InEffect
    asks_for_keys: bool = False
    """The engine is told to check clients' keys itself."""

    manners: Manners = LLAMA_SERVER


class Child:
    """One server. A child that is GONE does not come back; its keeper makes a new one."""

    def __init__(self, launch: Launch, run_folder: RunFolder) -> None:
        self.launch = launch
        self.state = ChildState.STARTING
        self.slots = Slots(launch.slots)
        self.users = 0
        """Requests that are being answered, whether or not they hold a slot."""

        self.blocked_by_clients = 0
        """How many of them wait for their client to take data, and not for the child."""

        self.pid: int | None = None
        self.cause: Cause | None = None
        """Why the child has to end, or has ended; None if it only ends because we want it to."""

        self.left = False
        """The child ended by itself, without being told to."""

        self.resident = 0
        """The most bytes of the host's memory that it held while it worked. Known once it was told
        to end; 0 if the number would say nothing about what it needs."""

        self.inquest = Inquest()
        self.settled = trio.Event()
        """Set when the child is ready, or never will be."""

        self.last_progress = 0.0
        """When the child last made progress: a token, or a step of a prefill or of a load."""

        self.load_progress: float | None = None
        """How much is loaded, from 0 to 1, if the engine says so."""

        self.asleep = False
        """Has the engine freed the model while nobody asks? This is only shown."""

        self.tells_progress: Callable[[float], None] = lambda part: None
        """Called with `load_progress` at each step of the load."""

        self.ready_at = math.inf
        self.last_used = -math.inf
        """When the last request that used it was done."""

        self._started = 0.0
        self._run_folder = run_folder
        self._autopsy = Autopsy(launch.manners)
        self._life = trio.CancelScope()
        self._exited = trio.Event()
        self._hint = trio.Event()
        self._unused = trio.Event()
        self._last_answers = trio.CancelScope()

    @property
    def address(self) -> Address:
        """The address at which the child answers."""
        return self.launch.address

    @cached_property
    def signature(self) -> Signature:
        """Who answers, for the headers of its answers."""
        return Signature.of(self.launch.model, str(self))

    @property
    def manners(self) -> Manners:
        """How to ask it, and what its words mean."""
        return self.launch.manners

    async def run(self) -> None:
        """The child's whole life: returns when the process is gone; `cause` says why.

        When this is cancelled, or `stop` was called, it ends the process (TERM, and after
        `stop_grace` KILL to its group), and returns only when that is done.
        """
        try:
            with self._life:
                if process := await self._spawn():
                    await self._live(process)
        finally:
            self._clear_away()

    async def _live(self, process: Process) -> None:
        async with trio.open_nursery() as incarnation:
            incarnation.start_soon(process.hear_out, Log(self, self._hear), Log(self, self._hear))
            incarnation.start_soon(self._until_gone, process, incarnation.cancel_scope)
            incarnation.start_soon(self._autopsy.keep_looking)
            if self.cause or not await self._until_ready():
                self.stop()
                return
            self.ready_at = self.last_used = trio.current_time()
            if self.manners.ends_with_stdin:
                process.loosen()
            # Weights that are packed for the processor are in memory twice while they load.
            forget_peak(process.pid)
            self._move(ChildState.READY)
            incarnation.start_soon(self._retire_when_told)
            await tending.again(f"the watchdog of {self}", watch, self, self.launch.in_effect)

    def stop(self, cause: Cause | None = None) -> None:
        """Begin to end the child, for a cause or because we want it: no new request is let in."""
        self._leave_service()
        if self.cause is None and cause is not None:
            self.cause = cause
            self.inquest.note_in_flight(self.users)
        self._life.cancel()

    @property
    def retirement(self) -> Seconds:
        """How many seconds its answers may go on once something is wrong with the child."""
        return self.launch.in_effect.config.recovery.retirement

    def retire(self, cause: Cause | None = None, patience: float = math.inf) -> None:
        """Admit no more requests, let those that it has finish for `patience` seconds, then stop:
        for a cause, or because we want it.

        The first cause counts, and the shortest patience: later calls can only hasten the end.
        """
        if self.state is ChildState.READY:
            self.cause = cause
            self._move(ChildState.RETIRING)
        if self.state is ChildState.RETIRING:
            deadline = trio.current_time() + patience
            self._last_answers.deadline = min(self._last_answers.deadline, deadline)

    def enter(self) -> None:
        """A request begins to use the child."""
        if not self.users:
            self._unused = trio.Event()
            self.last_progress = trio.current_time()
        self.users += 1

    def leave(self) -> None:
        """A request is done with the child."""
        self.users -= 1
        self.last_used = trio.current_time()
        if not self.users:
            self._unused.set()

    def note_abandoned(self, one: Accused) -> None:
        """The client of a request leaves without an answer. The child may still die of the
        request."""
        if self.state in (ChildState.READY, ChildState.RETIRING):
            self.inquest.note_abandoned(one)
        else:
            self.inquest.accused.append(one)

    async def until_unused(self) -> None:
        """Return when no request uses the child."""
        if self.users:
            await self._unused.wait()

    async def survived(self) -> bool:
        """After it closed a connection without an answer: is the child still well? If it is not,
        this returns when it is gone.

        It may be about to die. Or it lives, but lacks even the memory to say that it lacks memory.
        """
        with trio.move_on_after(_DEATH_PATIENCE):
            await self._exited.wait()
        if self._exited.is_set():
            return False
        if self.lose_address():
            return True
        if await probe.is_well(self.address, self.manners.look) is not False:
            return True
        self.stop(Cause(Kind.HANG, "it closes connections without an answer"))
        await self._exited.wait()
        return False

    def lose_address(self) -> bool:
        """Was the child's socket removed? Then no request can reach it, and it ends after its
        answers."""
        if not isinstance(self.address, UnixAddress) or self.ready_at == math.inf:
            return False
        if os.path.exists(self.address.path):
            return False
        words = "its socket was removed"
        self.retire(Cause(Kind.FINISHED, words), self.retirement)
        return True

    async def _retire_when_told(self) -> None:
        await self.slots.closed.wait()
        with self._last_answers:
            await self.until_unused()
        self.stop()

    async def _spawn(self) -> Process | None:
        try:
            process = await Process.start(
                self.launch.argv,
                self.launch.environment,
                lifeline=Lifeline(),
                name=self.launch.model,
            )
        except OSError as error:
            words = f"{self.launch.argv[0]} cannot be run: {error.strerror}"
            kind = Kind.SHORTAGE if is_shortage(error) else Kind.ENGINE_UNUSABLE
            self.cause = Cause(kind, words)
            return None
        self.pid = process.pid
        self._leave_mark(process)
        self._autopsy.look_for_kills()
        self._started = self.last_progress = trio.current_time()
        return process

    def _leave_mark(self, process: Process) -> None:
        try:
            self._run_folder.mark(process.pid)
        except ModelUnavailable as error:
            self.cause = Cause(Kind.SHORTAGE, str(error))

    async def _until_gone(self, process: Process, incarnation: trio.CancelScope) -> None:
        """Wait for the process to exit. When cancelled, end it, which takes a bounded time."""
        try:
            await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                wished = process.status is None
                if not wished and self.cause is None:
                    self.inquest.note_in_flight(self.users)
                self._leave_service()
                if wished:
                    self._note_memory(process)
                    await self._end(process)
                self._exited.set()
                self._hint.set()
                await process.last_words()
                if not wished and self.cause is None:
                    self.left = True
                    was_ready = self.ready_at < math.inf
                    self.cause = self._autopsy.cause(process.status, was_ready=was_ready)
            incarnation.cancel()

    def _move(self, to: ChildState) -> None:
        self.state = moved(self.state, to)
        if to in (ChildState.RETIRING, ChildState.STOPPING):
            self.slots.closed.set()
        if to in (ChildState.READY, ChildState.GONE):
            self.settled.set()

    def _leave_service(self) -> None:
        if self.state in (ChildState.STARTING, ChildState.READY, ChildState.RETIRING):
            self._move(ChildState.STOPPING)

    def _note_memory(self, process: Process) -> None:
        """Note how much memory the child took; later it cannot be asked any more.

        The number says nothing if the child never worked, for the kernel gives memory only when it
        is used. Nor does it if memory ran out.
        """
        if self.slots.turns and (self.cause is None or self.cause.kind is not Kind.OUT_OF_MEMORY):
            self.resident = most_resident(process.pid)

    async def _end(self, process: Process) -> None:
        grace: float = self.launch.in_effect.config.engine.stop_grace
        if self.cause is not None and self.cause.kind is Kind.HANG:
            grace = min(grace, _GRACE_OF_A_HUNG_CHILD)
        await process.stop(grace)

    def _clear_away(self) -> None:
        self._move(ChildState.GONE)
        if self.pid is not None:
            self._run_folder.unmark(self.pid)
        if isinstance(self.address, UnixAddress):
            with suppress(OSError):
                os.unlink(self.address.path)

    async def _until_ready(self) -> bool:
        """Wait until the child can answer. False, with a `cause`, if it never will.

        A line in its log says when to look, its answer is the proof. Some engines write lines that
        we do not know, so we look in any case, after longer and longer pauses.
        """
        pause = _FIRST_PAUSE
        effort_seen = Signs.since(trio.current_time())
        while True:
            with trio.move_on_after(pause):
                await self._hint.wait()
            self._hint = trio.Event()
            if self._exited.is_set():
                await trio.sleep_forever()  # `_until_gone` finds the cause, and cancels this
            # After the process has ended an answer proves nothing: another one may have its port.
            well = await probe.is_well(self.address, self.manners.look)
            if well and self.state is ChildState.STARTING and self._answers_itself():
                return self.cause is None
            patience = self.launch.in_effect.config.engine.load_timeout
            if not self.manners.log_shows_progress:
                await self._look_at_effort(effort_seen, patience / _LOOKS_AT_EFFORT)
            silence = trio.current_time() - self.last_progress
            if silence > patience and well is False:
                words = f"nothing was heard of it for {silence:.0f} s of loading"
                if not self.manners.has_rungs:
                    words += f" (it is ready when {self.manners.proof})"
                self.cause = Cause(Kind.HANG, words)
                return False
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _look_at_effort(self, seen: Signs, interval: float) -> None:
        """A child that computes while it starts makes progress; look at that now and then."""
        now = trio.current_time()
        if now - seen.moved >= interval and self.pid is not None:
            seen.moved = now
            with suppress(probe.NotAsked):
                seen.computed(now, await effort.spent(self.pid))
                self.last_progress = max(self.last_progress, seen.worked)

    def _answers_itself(self) -> bool:
        """Is it the child that answers? If it certainly is not, there is a `cause`."""
        if self.pid is None or not isinstance(self.address, TcpAddress):
            return True
        match listener(self.address.port, self.pid):
            case Listener.ANOTHER_USER:
                words = f"a program of another user listens at {self.address}"
                self.cause = Cause(Kind.ADDRESS_IN_USE, words)
            case Listener.ANOTHER:
                return trio.current_time() - self._started >= _DEATH_OF_A_LATECOMER
        return True

    def _hear(self, events: Sequence[Event]) -> None:
        if self.state is ChildState.STARTING and self.manners.log_shows_progress:
            self.last_progress = trio.current_time()
        for event in self.manners.understood(events):
            if isinstance(event, Line):
                self._autopsy.heard(event.text)
                log.debug("%s: %s", self, event.text)
            elif isinstance(event, PromptProgress):
                self.last_progress = trio.current_time()
            elif self.state is ChildState.STARTING:
                self._heed_milestone(event)
            elif isinstance(event, FellAsleep | ModelLoaded):
                self.asleep = isinstance(event, FellAsleep)

    def _heed_milestone(self, event: Event) -> None:
        """Note a step of the start. Later such lines say nothing new, and may be a client's
        words."""
        if isinstance(event, Listening | ModelLoaded):
            self._hint.set()
        elif isinstance(event, LoadProgress):
            self.load_progress = event.fraction
            if event.fraction is not None:
                self.tells_progress(event.fraction)
        elif isinstance(event, SlotsConfigured) and event.n_slots >= 1:
            self.slots.size = event.n_slots

    def __str__(self) -> str:
        return f"{self.launch.model}[{self.pid}]"

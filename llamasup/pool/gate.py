"""A model's gate: requests wait here for a child, or for a slot of it, and enter in fair order.

While a request waits, the gate's usher asks the keeper for a child. When no request waits any more,
a load that has no place in memory yet is given up; one that has its place goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from llamasup import tending
from llamasup.access.consumption import Consumption
from llamasup.children.child import Child
from llamasup.children.keeper import Keeper
from llamasup.config.in_effect import InEffect
from llamasup.errors import (
    LlamasupError,
    ModelMoved,
    ModelNotLoaded,
    QueueFull,
    QueueTimeout,
    TaskFell,
)
from llamasup.pool.dock import Dock
from llamasup.pool.queue import Client, Crowded, FairQueue, Ticket, Used, full
from llamasup.pool.work import Work
from llamasup.states import ChildState

_LOOK_AGAIN_AFTER = 1.0
_LOADED = b"loaded"

_QUESTIONS_AT_ONCE = 8
"""Requests without a slot that one child answers at a time. Each holds one of the engine's HTTP
threads. There are 16 more threads than slots, and one must be free for the watchdog's question."""

_LOOKS_AT_ONCE = 4
"""The same for looks, in addition; each of them holds such a thread, too."""


class Visit:
    """One request's way through the gate, and out again."""

    __slots__ = (
        *("alone", "answered", "child", "client", "counted_for", "expected"),
        *("failure", "priority", "ticket", "work"),
    )

    def __init__(
        self, work: Work, client: Callable[[], Client], priority: int, expected: bytes = b""
    ) -> None:
        self.work = work
        self.expected = expected
        """What the llamasup in front expects of the model, if the request may go back to it."""

        self.client = client
        self.priority = priority
        self.alone = False
        """Is it a suspect, which is let in only while no innocent request is answered?"""

        self.child: Child | None = None
        """The child that answers the request, once it was let in."""

        self.counted_for: str | None = None
        """The client for whom it counts as a request in flight, if that matters."""

        self.failure: LlamasupError | None = None
        self.answered: trio.Event | None = None
        self.ticket: Ticket[Visit] | None = None

    @property
    def line(self) -> Work | None:
        """The line in which the request waits; None is the line of requests to be tried alone."""
        return None if self.alone else self.work


class Gate:
    """The entrance to one model. Its usher lives in `nursery` while requests wait."""

    def __init__(
        self,
        keeper: Keeper,
        nursery: trio.Nursery,
        in_effect: InEffect,
        on_idle: Callable[[Gate], None],
        consumption: Consumption,
    ) -> None:
        self.keeper = keeper
        self.shut_out_since: float | None = None
        """Since when requests wait and none is let in; None if that is not so."""

        self.held = False
        """Is no request let in for now, because it is the turn of other models?"""

        self._nursery = nursery
        self._in_effect = in_effect
        self._on_idle = on_idle
        self._consumption = consumption
        self._queues = {
            line: FairQueue[Visit](in_effect.config.pool.max_queue)
            for line in (None, Work.GENERATE, Work.ASK)
        }
        self._dock = Dock(nursery, self._queues[None].__len__, self.admit)
        self._guests: set[Visit] = set()
        """Those waiting that may go back to the llamasup in front."""

        self._looks = 0
        self._has_usher = False
        self._interest = trio.CancelScope()

    @property
    def waiting(self) -> int:
        """How many requests wait here."""
        return sum(map(len, self._queues.values()))

    async def enter(self, visit: Visit) -> Child:
        """Wait for a child, and for a slot if the work needs one; `leave` gives both back.

        Raises QueueFull, QueueTimeout, ModelMoved if another llamasup may have a free slot, or the
        reason why there will be no child. If this is cancelled, nothing is held.
        """
        child = self._open_child()
        if child and not self._queues[visit.line] and self._has_room(child, visit.line):
            self._let_in(visit, child)
            return child
        if visit.expected == _LOADED and child is None:
            raise ModelMoved.of(self.keeper.model, visit.expected)
        self._join(visit)
        patience = self._in_effect.config.pool.queue_timeout
        with trio.move_on_after(patience), self._as_guest(visit):
            await self._wait(visit)
        if visit.failure:
            raise visit.failure
        if visit.child is None:
            raise QueueTimeout(
                f'"{self.keeper.model}" had no time for this request within {patience:g} s;'
                " ask again when fewer do, or give the model more slots (parallel)"
            )
        return visit.child

    def is_free(self, work: Work) -> bool:
        """Would a request for such work be let in at once?"""
        child = self._open_child()
        return child is not None and not self._queues[work] and self._has_room(child, work)

    def leave(self, visit: Visit) -> None:
        """The request is done, and another one may enter."""
        child = visit.child
        assert child is not None  # `enter` has returned
        child.leave()
        self._dock.leaves(visit)
        if visit.work is Work.GENERATE:
            child.slots.give_back()
        if visit.counted_for is not None:
            self._consumption.end(visit.counted_for)
            visit.counted_for = None
        if any(self._queues.values()):
            self.admit()
        if not child.users:
            self._on_idle(self)

    def tries(self, visit: Visit) -> bool:
        """Is this visit on trial at this moment?"""
        return self._dock.tries(visit)

    @contextmanager
    def look(self) -> Iterator[Child]:
        """The child, if one is ready, for a request that only looks. The child may still be
        unloaded.

        Raises ModelNotLoaded, and QueueFull if too many requests look at once.
        """
        model, child = self.keeper.model, self.keeper.child
        if child is None or child.state is not ChildState.READY:
            state = child.state.value if child else self.keeper.state.shown
            raise ModelNotLoaded(
                f'"{model}" is {state}, and this page loads no model: add autoload=true to its'
                " query, or load it first (POST /models/load)"
            )
        if self._looks >= _LOOKS_AT_ONCE:
            many = QueueFull(f'{self._looks} others look at "{model}" at this moment; look again')
            many.retry_after = _LOOK_AGAIN_AFTER
            raise many
        self._looks += 1
        try:
            yield child
        finally:
            self._looks -= 1

    def hold(self, held: bool) -> None:
        """If `held`, let no request in for now; otherwise let them in again."""
        if held is not self.held:
            self.held = held
            if held:
                self._send_guests_back()
            self.admit()

    def outlook(self, visit: Visit) -> str:
        """What the request waits for, and how many requests are before it, for its client."""
        if self.held:
            return f"waiting for {self.keeper.model}: others have their turn first"
        if not self._open_child():
            return self.keeper.outlook
        before = visit.ticket and self._queues[visit.line].position(visit.ticket)
        whose_turn = f"{before} before you" if before else "you are next"
        return f"waiting for a slot of {self.keeper.model}, {whose_turn}"

    def admit(self) -> None:
        """Let in as many waiting requests as there is room for."""
        if child := self._open_child():
            self._interest.cancel()  # the usher watches this child from now on
            for line, queue in self._queues.items():
                while queue and self._has_room(child, line):
                    visit = queue.pop(self._used)
                    self._let_in(visit, child)
                    _answer(visit)
        self._update()

    def _open_child(self) -> Child | None:
        """The child that takes requests at present."""
        child = self.keeper.child
        open_ = child is not None and child.state is ChildState.READY and not self.held
        return child if open_ else None

    def _has_room(self, child: Child, line: Work | None) -> bool:
        if not self._dock.lets_in(child, suspect=line is None):
            return False
        if line is Work.ASK:
            return child.users - child.slots.taken < _QUESTIONS_AT_ONCE
        return child.slots.free

    @property
    def _used(self) -> Used | None:
        """How much each client has used, if that decides who is next."""
        if self._in_effect.config.pool.fair != "tokens":
            return None
        return self._consumption.at(trio.current_time())

    def _let_in(self, visit: Visit, child: Child) -> None:
        if visit.work is Work.GENERATE:
            child.slots.take()
            if self._in_effect.config.pool.fair == "tokens":
                visit.counted_for = visit.client().place
                self._consumption.begin(visit.counted_for)
        child.enter()
        visit.child = child
        if visit.alone:
            self._dock.enters(visit, child)

    def _join(self, visit: Visit) -> None:
        queue = self._queues[visit.line]
        queue.size = self._in_effect.config.pool.max_queue + self._lets_in_at_once(visit.line)
        client = visit.client()
        try:
            if len(queue) >= queue.size:
                self._displace(queue, client)
            visit.ticket = queue.push(visit, client, visit.priority)
        except Crowded:
            raise self._full(len(queue)) from None
        visit.answered = trio.Event()
        if visit.alone:
            self._dock.suspect_waits()
        self._update()
        if not self._has_usher:
            self._has_usher = True
            name = f"usher of {self.keeper.model}"
            self._nursery.start_soon(tending.alone, name, self._usher, name=name)

    def _lets_in_at_once(self, line: Work | None) -> int:
        """How many requests will enter as soon as the gate opens: these do not wait for a slot."""
        if self._open_child():
            return 0
        if line is Work.ASK:
            return _QUESTIONS_AT_ONCE
        return self.keeper.plan.slots if line else 1

    def _displace(self, queue: FairQueue[Visit], client: Client) -> None:
        """Refuse one waiting request of a client that has more of them than `client`."""
        waiting = len(queue)
        greedy = queue.displace(client)
        greedy.failure = self._full(waiting)
        _answer(greedy)

    def _full(self, waiting: int) -> QueueFull:
        words = f'all slots of "{self.keeper.model}" are busy, and {waiting} requests wait'
        return full(self._in_effect.config.pool, words)

    @contextmanager
    def _as_guest(self, visit: Visit) -> Iterator[None]:
        """A block in which the request waits, and may have to go back."""
        if visit.expected:
            self._guests.add(visit)
        try:
            yield
        finally:
            self._guests.discard(visit)

    def _send_guests_back(self) -> None:
        for visit in self._guests:
            if visit.ticket is not None:
                self._queues[visit.line].remove(visit.ticket)
                visit.failure = ModelMoved.of(self.keeper.model, visit.expected)
                _answer(visit)

    async def _wait(self, visit: Visit) -> None:
        assert visit.answered is not None
        assert visit.ticket is not None
        try:
            await visit.answered.wait()
        except trio.Cancelled:
            # The request may have been let in between the cancellation and this line.
            if visit.child:
                self.leave(visit)
                visit.child = None
            elif not visit.failure:
                self._queues[visit.line].remove(visit.ticket)
                if visit.alone:
                    self.admit()  # others may have waited for the end of its trial
                self._update()
            raise

    async def _usher(self) -> None:
        """While requests wait, get a child loaded, and another one when that one ends."""
        try:
            while self.waiting:
                if child := self._open_child() or await self._ready_child():
                    self.admit()
                    await child.slots.closed.wait()
                self._update()
        except Exception:
            self.turn_away(TaskFell(f'the usher of "{self.keeper.model}" fell; ask again'))
            raise
        finally:
            self._has_usher = False

    async def _ready_child(self) -> Child | None:
        with trio.CancelScope() as self._interest:
            try:
                return await self.keeper.ready()
            except LlamasupError as error:
                self.turn_away(error)
        return None

    def turn_away(self, error: LlamasupError) -> None:
        """Refuse all waiting requests with this error."""
        for queue in self._queues.values():
            while queue:
                visit = queue.pop()
                visit.failure = error.again()
                _answer(visit)
        self._update()

    def _update(self) -> None:
        """Note whether requests are shut out; without waiting requests, stop waiting for a
        child."""
        if not self.waiting:
            self._interest.cancel()
        if not self.waiting or self._open_child():
            self.shut_out_since = None
        elif self.shut_out_since is None:
            self.shut_out_since = trio.current_time()


def _answer(visit: Visit) -> None:
    assert visit.answered is not None  # the request waits
    visit.ticket = None
    visit.answered.set()

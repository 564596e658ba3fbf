"""A keeper owns one model's children over time: it loads, restarts and replaces them.

A load (`load`) belongs to the keeper, not to the request that caused it. Requests wait for it, and
may leave; the load goes on. Otherwise a client that gives up after a minute and tries again would
never see a model that takes two minutes to load.

After a child has died the next one is started when the history of the model allows that, and if a
request wants it or the model is preloaded. When the model gets a new plan, its history is
forgotten.
"""

from __future__ import annotations

import math
from contextlib import suppress

import trio
from attrs import evolve

from llamasup import tending
from llamasup.children.child import Child
from llamasup.children.descent import Descent
from llamasup.children.history import History
from llamasup.children.landlord import Landlord
from llamasup.children.load import Load
from llamasup.children.plan import Plan
from llamasup.children.restarts import Record
from llamasup.children.suspects import Suspects
from llamasup.engine.failures import Cause, Kind
from llamasup.errors import (
    LlamasupError,
    ModelNotFound,
    ModelUnavailable,
    NotAdmitted,
    OutOfMemory,
)
from llamasup.events import ChildRetires, Journal, RanOutOfMemory
from llamasup.memory.ladder import Rung
from llamasup.states import AT_REST, ChildState, KeeperState

_LEAST_WAIT = 1.0

_PUT_AWAY = "an operator has unloaded its model"


class Keeper:
    """The keeper of one model. Its task lives in `nursery` while there is a child."""

    def __init__(
        self, plan: Plan, landlord: Landlord, journal: Journal, nursery: trio.Nursery
    ) -> None:
        self.plan = plan
        self.dismissed = False
        """The model is not offered any more, so nothing is loaded."""

        self.suspects = Suspects()
        """Requests that may have ended children of this model."""

        self.history = History()
        self._descent = Descent(self, landlord, journal)
        self._journal = journal
        self._nursery = nursery
        self._interested = 0
        self._load: Load | None = None
        """The last load, which may be over."""

    @property
    def model(self) -> str:
        """The model's name."""
        return self.plan.model

    @property
    def state(self) -> KeeperState:
        """How far the last load is, or how it has ended."""
        return self._load.state if self._load else KeeperState.UNLOADED

    @property
    def child(self) -> Child | None:
        """The child that was ready last, until it is gone."""
        return self._load.child if self._load else None

    @property
    def idle(self) -> bool:
        """Is there no child, and none loading?"""
        return self.state in AT_REST

    async def until_idle(self) -> None:
        """Return when there is no child, and none is loading."""
        while self._load is not None and not self.idle:
            await self._load.over.wait()

    @property
    def rung(self) -> Rung | None:
        """The rung that the child is on, or the last one was on."""
        return self._descent.rung

    @property
    def loads(self) -> int:
        """How many children were started."""
        return self.history.loads

    @property
    def last_failure(self) -> LlamasupError | None:
        """Why there is no child, if there should be one."""
        return self.history.last_failure

    @property
    def progress(self) -> float | None:
        """How much of the model is loaded, from 0 to 1, if it loads and the engine says so."""
        starting = self._load and self._load.starting
        return starting.load_progress if starting else None

    @property
    def outlook(self) -> str:
        """What a request that wants a child is waiting for."""
        if self.state is KeeperState.WAITING:
            return f"waiting for room for {self.model}"
        progress = self.progress
        return f"loading {self.model}" + ("" if progress is None else f", {progress:.0%}")

    async def ready(self) -> Child:
        """A child that is ready, started if there is none.

        Raises ModelUnavailable if it cannot be started, or not within the model's patience. If this
        is cancelled, a load that has begun goes on; one that still waits for a place is given up
        when no request wants it any more.
        """
        self._interested += 1
        try:
            return await self._ready()
        finally:
            self._interested -= 1
            if self._load is not None:
                self._load.reconsider()

    async def _ready(self) -> Child:
        if self.history.awaits_change and self.idle:
            self.history.note_circumstances(await self.plan.circumstances())
        while True:
            if self.child is not None and self.child.state is ChildState.READY:
                return self.child
            load = self._begin() if self._load is None or self.idle else self._load
            if load.settled.is_set():
                await load.over.wait()
                continue
            await load.settled.wait()
            if load.failure is not None:
                raise self._dated(load.failure)

    def note_out_of_memory(self, child: Child, words: str) -> bool:
        """A child answered a request that memory ran out. Does the child end, because the next one
        may do better?

        The first such request retires the child. Further ones take no further step, but they prove
        that the first request was not the reason by itself.
        """
        suffered = Cause(Kind.OUT_OF_MEMORY, words, proven=False)
        if child.state is ChildState.READY and self._descent.can_go_on():
            self._journal.tell(RanOutOfMemory(self.model, str(child), words))
            child.retire(suffered, child.retirement)
        elif child.cause is not None and child.cause.kind is Kind.OUT_OF_MEMORY:
            child.cause = evolve(child.cause, proven=True)
        return child.state is not ChildState.READY

    def exhausted(self, words: str) -> OutOfMemory:
        """The error for a request that ran out of memory on the last rung."""
        tried = self._descent.position.story(words)
        return OutOfMemory(
            f'model "{self.model}" ran out of memory; tried {tried}. Ask for less at once, or give'
            " it a smaller last rung (ladder.contexts)"
        )

    def restart(self) -> None:
        """Start a new child for the operator, and forget what went wrong."""
        self.history.record = Record()
        if self.child is not None:
            cause = Cause(Kind.FINISHED, "the operator wants a new one")
            self.child.retire(cause, self.child.retirement)
        elif self.plan.preloaded and self.idle:
            self._begin()

    def lose_address(self) -> None:
        """The folder with the child's socket was removed: another child replaces it."""
        if self.child is not None:
            self.child.lose_address()
        elif self._load is not None and self._load.starting is not None:
            words = "the folder of its socket was removed while it was loaded"
            self._load.starting.stop(Cause(Kind.SHORTAGE, words))

    def unload(self) -> None:
        """End the child: another model needs its place, or it has not been used for long."""
        if self.child is not None:
            self.child.stop()

    def put_away(self) -> None:
        """Unload the model for an operator: its child ends after its answers. A load that has begun
        goes on, but only for the requests that wait for it.

        Later requests load it again.
        """
        if self.child is not None:
            if self.child.state is ChildState.READY:
                self._journal.tell(ChildRetires(self.model, str(self.child), _PUT_AWAY))
            self.child.retire()
        elif self._load is not None and not self.idle:
            self._load.overtake(_PUT_AWAY)

    def room_appeared(self) -> None:
        """Another model gave its memory back: if this one did not fit beside it, it need not
        wait."""
        self.history.note_room()

    def follow(self, plan: Plan) -> None:
        """Use this plan from now on. A child that it would launch differently ends after its
        answers."""
        alike = plan.launches_like(self.plan)
        self.plan = plan
        self.dismissed = False
        if alike:
            self._descent.position.plan = plan
            return
        self._put_out_of_date("its configuration has changed")
        if plan.preloaded and self.idle:
            self._begin()

    def dismiss(self) -> None:
        """The model is not offered any more: nothing is loaded, and its child ends after its
        answers."""
        self.dismissed = True
        self._put_out_of_date("its model is not offered any more")

    def _put_out_of_date(self, why: str) -> None:
        """Let a running child end after its last answer, then forget what went wrong."""
        if self._load is None or self.idle:
            self._forget()
        else:
            self._load.overtake(why)

    def _forget(self) -> None:
        self.history.forget()
        self._descent.forget()

    def _is_wanted(self) -> bool:
        return self._interested > 0 or self.plan.preloaded

    def _begin(self) -> Load:
        """Start a load. Raises the last failure while it is too early for another one."""
        if self.dismissed:
            raise ModelNotFound(f'there is no model "{self.model}" any more')
        if self.history.crowded_out and self._descent.could_get_room():
            self.room_appeared()
        wait = self.history.wait()
        if wait > self.plan.patience:
            raise self._not_yet()
        self._load = load = Load(
            self.state,
            self._descent,
            self.history,
            self.suspects,
            self._is_wanted,
            self._journal,
        )
        name = f"keeper of {self.model}"
        self._nursery.start_soon(tending.alone, name, self._keep, load, wait, name=name)
        return load

    def _not_yet(self) -> LlamasupError:
        known = self.last_failure or ModelUnavailable(f'model "{self.model}" keeps dying')
        return self._dated(known)

    def _dated(self, failure: LlamasupError) -> LlamasupError:
        """The failure, and when another load is allowed."""
        failure, wait = failure.again(), self.history.wait()
        if isinstance(failure, NotAdmitted):
            return failure
        if math.isinf(wait):
            failure.retry_after = None
            what_next = "it is given up until its file, its configuration or the engine changes"
        else:
            failure.retry_after = max(wait, _LEAST_WAIT)
            what_next = f"it may be tried again in {failure.retry_after:.0f} s"
        failure.args = (f"{failure}; {what_next}",)
        return failure

    async def _keep(self, load: Load, wait: float) -> None:
        """One load, to the end of its child; a preloaded model is loaded again then."""
        is_missed = is_out_of_date = False
        try:
            is_missed = await load.run(wait)
        finally:
            is_out_of_date = load.is_out_of_date
            if is_out_of_date:
                self._forget()
            load.finish()
        if self.plan.preloaded and (is_missed or is_out_of_date):
            await self._restart()

    async def _restart(self) -> None:
        """Load a preloaded model again without a request, unless it was given up."""
        if self.history.record.given_up:
            return
        await self.history.rest(self.history.wait(), self.plan.circumstances)
        if self.idle:
            with suppress(ModelUnavailable, ModelNotFound):  # given up or dismissed meanwhile
                self._begin()

"""A keeper owns one model's children over time: starts, watches, restarts, steps down the ladder.

A load belongs to the keeper, not to the request that caused it. Requests wait for it, and may
leave; it goes on. Otherwise a client that gives up after a minute and tries again would never see
a model that takes two minutes to load.

A child that runs out of memory, while it loads or later, is followed by its like as long as
somebody idle can go for it, and else by one on the next rung. What ran out while others held memory
is tried again as soon as some of them are gone. One that dies otherwise is followed by its like,
when `restarts` says so, and when somebody wants it.

A child that another plan has put out of date answers those whom it has let in, however long that
takes. Its successor begins anew, as if nothing had ever gone wrong.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Protocol

import trio
from attrs import evolve

from llamasup import tending
from llamasup.children.child import Child
from llamasup.children.needs import Needed
from llamasup.children.plan import Plan
from llamasup.children.position import Position
from llamasup.children.restarts import (
    Record,
    after_change,
    after_death,
    after_failed_start,
    after_life,
    after_room,
    after_success,
    after_verdict,
)
from llamasup.children.suspects import Suspects
from llamasup.engine.failures import Cause, Kind
from llamasup.errors import (
    EngineUnusable,
    LlamasupError,
    ModelFileMissing,
    ModelNotFound,
    ModelUnavailable,
    NotAdmitted,
    OutOfMemory,
    TaskFell,
)
from llamasup.memory.ladder import Rung
from llamasup.memory.room import Room
from llamasup.models.glances import one_glance
from llamasup.states import ChildState, KeeperState, moved

log = logging.getLogger(__name__)

_NOTE_PATIENCE = 1.0
_TESTIMONY_PATIENCE = 1.0

_LAID_TO_REQUESTS = {Kind.CRASH, Kind.KILLED, Kind.HANG, Kind.UNKNOWN}
"""Ends that a request may have caused, and not only want of memory or somebody's wish."""

_ERRORS = {Kind.ENGINE_UNUSABLE: EngineUnusable, Kind.MISSING_FILE: ModelFileMissing}


class Place(Protocol):
    """Memory for one child, held from `async with` until the child is gone and it is back."""

    async def __aenter__(self) -> Place: ...

    async def __aexit__(self, *error: object) -> None: ...

    def occupy(self, child: Child) -> None:
        """It is for this child."""

    def ready(self) -> None:
        """The child is ready."""


class Landlord(Protocol):
    """Who has the memory to give."""

    async def room(self, keeper: Keeper) -> Room:
        """How much of it the keeper's next child may take."""

    async def place(self, keeper: Keeper, needed: Needed) -> Place:
        """A place, waited for. Raises NotAdmitted if there can be none."""

    def dispensable(self, keeper: Keeper, needed: Needed) -> Sequence[str]:
        """Who could go for the keeper's child, the first of them first."""

    async def make_way(self, victims: Collection[str]) -> None:
        """These go. Returns when their memory is back."""

    def crowds(self, keeper: Keeper, needed: Needed) -> bool:
        """Do others hold memory beside the keeper's child?"""


class _Load:
    """One load as those see it who wait for it; it may take several incarnations."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        """It is ready, or never will be."""

        self.over = trio.Event()
        self.failure: LlamasupError | None = None
        self.tried_again = False
        self.outdated = False
        """It was begun with a plan that does not hold any more."""


class Keeper:
    """One model. Its task lives in `nursery` while there is a child."""

    def __init__(self, plan: Plan, landlord: Landlord, nursery: trio.Nursery) -> None:
        self.plan = plan
        self.state = KeeperState.UNLOADED
        self.child: Child | None = None
        """The child that was ready last, until it is gone."""

        self.last_failure: LlamasupError | None = None
        self.loads = 0
        self.record = Record()
        self.suspects = Suspects()
        """Requests that may have ended its children."""

        self._landlord = landlord
        self._nursery = nursery
        self._interested = 0
        self._wish = trio.CancelScope()
        self._load: _Load | None = None
        self._starting: Child | None = None
        self._needed: Needed | None = None
        self._crowded_out = False
        """It did not fit, while others held memory."""

        self._pause = trio.CancelScope()
        self._position = Position(plan)
        self._begun_in: object = None
        self._given_up_in: object = None
        self.dismissed = False
        """Its model is not offered any more: it loads nothing."""

    @property
    def model(self) -> str:
        """Its name."""
        return self.plan.model

    @property
    def idle(self) -> bool:
        """It has no child, and none is loading."""
        return self._load is None

    async def until_idle(self) -> None:
        """Return when it has no child, and none is loading."""
        while self._load is not None:
            await self._load.over.wait()

    @property
    def rung(self) -> Rung | None:
        """The rung that its child is on, or was last."""
        return self._position.rung

    @property
    def outlook(self) -> str:
        """What somebody who wants a child is waiting for."""
        if self.state is KeeperState.WAITING:
            return f"waiting for room for {self.model}"
        progress = self._starting and self._starting.load_progress
        return f"loading {self.model}" + ("" if progress is None else f", {progress:.0%}")

    async def ready(self) -> Child:
        """A child that is ready, started if there is none.

        Raises ModelUnavailable if it cannot be started, or not within our patience. Cancelled,
        a load that has begun goes on; one that still waits for a place is given up when nobody
        is interested in it any more.
        """
        self._interested += 1
        try:
            return await self._ready()
        finally:
            self._interested -= 1
            self._lose_interest()

    def _lose_interest(self) -> None:
        """Give up the wait for a place that nobody wants any more, or not for this child."""
        outdated = self._load is not None and self._load.outdated
        if outdated or (not self._interested and not self.plan.preloaded):
            self._wish.cancel()

    async def _ready(self) -> Child:
        await self._reconsider()
        while True:
            if self.child is not None and self.child.state is ChildState.READY:
                return self.child
            load = self._load or self._begin()
            if load.settled.is_set():
                await load.over.wait()
                continue
            await load.settled.wait()
            if load.failure is not None and not load.outdated:
                raise load.failure

    def out_of_memory(self, child: Child, words: str) -> bool:
        """A child said so to a request. Can its successor have more memory, or take less?

        The first request to suffer it retires the child; for the others it is the same step, and
        they prove that it was not its own doing.
        """
        suffered = Cause(Kind.OUT_OF_MEMORY, words, proven=False)
        if child.state is ChildState.READY and (not self._position.is_last or self._victims()):
            log.warning("%s ran out of memory: %s", child, words)
            child.retire(suffered, child.retirement)
        elif child.cause is not None and child.cause.kind is Kind.OUT_OF_MEMORY:
            child.cause = evolve(child.cause, proven=True)
        return child.state is not ChildState.READY

    def exhausted(self, words: str) -> OutOfMemory:
        """The error for a request that ran out of memory on the last rung."""
        tried = self._position.story(words)
        return OutOfMemory(f'model "{self.model}" ran out of memory; tried {tried}')

    def restart(self) -> None:
        """The operator says so: a new child, and what went wrong is forgotten."""
        self.record = Record()
        if self.child is not None:
            cause = Cause(Kind.FINISHED, "the operator wants a new one")
            self.child.retire(cause, self.child.retirement)
        elif self.plan.preloaded and self._load is None:
            self._begin()

    def lose_address(self) -> None:
        """The folder with its child's socket was removed: another child takes its place."""
        if self.child is not None:
            self.child.lose_address()
        elif self._starting is not None:
            words = "the folder of its socket was removed while it was loaded"
            self._starting.stop(Cause(Kind.SHORTAGE, words))

    def unload(self) -> None:
        """Its place is needed for another one, or it has not been used for long."""
        if self.child is not None:
            self.child.stop()

    def adopt(self, plan: Plan) -> None:
        """Go by this plan from now on; a child that is not as it says goes after its answers."""
        alike = plan.launches_like(self.plan)
        self.plan = plan
        self.dismissed = False
        if alike:
            self._position.plan = plan
            return
        self._put_out_of_date("its configuration has changed")
        if plan.preloaded and self._load is None:
            self._begin()

    def dismiss(self) -> None:
        """Its model is not offered any more: it loads nothing, and its child goes likewise."""
        self.dismissed = True
        self._put_out_of_date("its model is not offered any more")

    def _put_out_of_date(self, why: str) -> None:
        """What runs ends when its last answer has, and what went wrong is forgotten then."""
        if self._load is None:
            self._forget()
            return
        self._load.outdated = True
        self._lose_interest()
        if self.child is not None and self.child.state is ChildState.READY:
            log.info("%s goes after its answers: %s", self.child, why)
            self.child.retire(Cause(Kind.FINISHED, why))

    def _forget(self) -> None:
        self.record = Record()
        self.last_failure = None
        self._position = Position(self.plan)
        self._crowded_out = False

    def room_appeared(self) -> None:
        """Somebody else is gone that held memory: what did not fit beside it need not wait."""
        if self._crowded_out:
            self._crowded_out = False
            self.record = after_room(self.record, trio.current_time())
            self._pause.cancel()

    async def _reconsider(self) -> None:
        """What was given up deserves another try when its files or the engine have changed."""
        if self.record.given_up and self._load is None:
            now = await self.plan.circumstances()
            if self.record.given_up and now not in (None, self._given_up_in):
                self.record = after_change(self.record)

    def _begin(self) -> _Load:
        """Start a load. Raises the last failure while it is too early for another one."""
        if self.dismissed:
            raise ModelNotFound(f'there is no model "{self.model}" any more')
        if self._crowded_out and self._could_go():
            self.room_appeared()
        wait = math.inf if self.record.given_up else self.record.wait(trio.current_time())
        if wait > self.plan.patience:
            raise self._not_yet(wait)
        self._load = load = _Load()
        self.state = moved(self.state, KeeperState.LOADING)
        name = f"keeper of {self.model}"
        self._nursery.start_soon(tending.alone, name, self._keep, load, wait, name=name)
        return load

    def _not_yet(self, wait: float) -> LlamasupError:
        known = self.last_failure or ModelUnavailable(f'model "{self.model}" keeps dying')
        failure = known.again()
        failure.retry_after = None if math.isinf(wait) else wait
        return failure

    async def _keep(self, load: _Load, wait: float) -> None:
        """One load: down the ladder until a child is ready, then until it is gone."""
        missed = False
        try:
            await self._rest(wait)
            # Not when it has failed: what changed meanwhile may be what it failed for.
            self._begun_in = await self.plan.circumstances()
            missed = await self._serve(load)
        except NotAdmitted as error:
            # No verdict on the model: there may be room when it is asked for another time.
            self.last_failure = load.failure = error
            log.warning("%s", error)
        except LlamasupError as error:
            # What is not the engine's fault, such as a range without a free port, may pass.
            unusable = isinstance(error, EngineUnusable)
            cause = Cause(Kind.ENGINE_UNUSABLE if unusable else Kind.SHORTAGE, str(error))
            self._note_failed_start(cause)
            self._fail(load, cause)
            missed = True
        except Exception as error:
            self._fall(load, error)
            missed = True
        finally:
            self.child = self._starting = self._load = None
            # Who has been ready did not fail to load, whatever it fell by.
            was_ready = self.state is KeeperState.READY
            failed = load.failure is not None and not was_ready and not load.outdated
            if load.outdated:
                self._forget()
            self.state = moved(self.state, KeeperState.FAILED if failed else KeeperState.UNLOADED)
            load.settled.set()
            load.over.set()
        if self.plan.preloaded and (missed or load.outdated) and not self.record.given_up:
            await self._restart()

    def _fall(self, load: _Load, error: Exception) -> None:
        """It costs this load. That the next one may fall likewise, its pause allows for."""
        load.failure = TaskFell(f'the keeper of "{self.model}" fell')  # whatever follows here
        why = tending.tell_of_fall(f"the keeper of {self.model}", error)
        cause = Cause(Kind.SHORTAGE, why)
        self._note_failed_start(cause)
        self._fail(load, cause)

    async def _rest(self, seconds: float) -> None:
        """Wait, unless room appears."""
        with trio.move_on_after(seconds) as self._pause:
            await trio.sleep_forever()

    async def _restart(self) -> None:
        """A preloaded model comes back without being asked for."""
        await self._rest(self.record.wait(trio.current_time()))
        if self._load is None:
            with suppress(ModelUnavailable, ModelNotFound):  # given up, or gone, meanwhile
                self._begin()

    async def _serve(self, load: _Load) -> bool:
        """Children, until one was ready and is gone, or there can be none, or nobody wants one.

        Is it missed? That is: did it die, or could it not be started?
        """
        ran_out = False
        while True:
            child = await self._incarnate(load)
            if child is None:
                return False
            if load.settled.is_set():
                try:
                    await self._mourn(child)
                finally:
                    child.mourned.set()
                return child.cause is not None
            assert child.cause is not None  # it never got ready
            cause = child.cause
            if ran_out and cause.kind is Kind.SHORTAGE:
                cause = evolve(cause, kind=Kind.OUT_OF_MEMORY)  # threads take memory, too
            ran_out = cause.kind is Kind.OUT_OF_MEMORY
            if not (await self._eases(cause) or await self._tries_again(load, cause)):
                self._fail(load, cause)
                return True

    async def _incarnate(self, load: _Load) -> Child | None:
        """One child in a place of its own; None if it was not wanted any more."""
        with one_glance():  # its many questions are about one and the same engine and files
            room = await self._landlord.room(self)
            rung = await self._position.take(room)
            self._needed = needed = await self.plan.need(rung, room.free)
        with trio.CancelScope() as self._wish:
            self._lose_interest()  # everybody may have left meanwhile
            self.state = moved(self.state, KeeperState.WAITING)
            place = await self._landlord.place(self, needed)
            self.state = moved(self.state, KeeperState.LOADING)
        if self._wish.cancelled_caught:
            return None
        async with place:
            child = await self.plan.child(rung)
            place.occupy(child)
            try:
                await self._raise(child, load, place)
            finally:
                if child.resident and not load.outdated:
                    await self._note(rung, child.resident)
        return child

    async def _raise(self, child: Child, load: _Load, place: Place) -> None:
        """From its start to its end."""
        self.loads += 1
        self._starting = child
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            await child.settled.wait()
            self._starting = None
            if child.state is ChildState.READY:
                await self._welcome(child, load, place, trio.current_time() - started)

    async def _note(self, rung: Rung, resident: int) -> None:
        """What a child took is worth a moment, even when everything ends."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _NOTE_PATIENCE):
            await self.plan.measured(rung, resident)

    async def _welcome(self, child: Child, load: _Load, place: Place, seconds: float) -> None:
        self.state = moved(self.state, KeeperState.READY)
        self.child = child
        self.last_failure = None
        self._crowded_out = False
        self.record = after_success(self.record)
        load.settled.set()
        log.info("%s is ready after %.2f s (%s)", child, seconds, self.rung)
        if load.outdated:
            child.retire(Cause(Kind.FINISHED, "its configuration changed while it was loaded"))
        else:
            place.ready()
            await self._position.held()

    async def _mourn(self, child: Child) -> None:
        """It was ready, and is gone: decide with what the next one begins, and when."""
        cause = child.cause
        now = trio.current_time()
        ready_for = now - child.ready_at
        if cause is None or (cause.kind is Kind.FINISHED and not child.left):
            log.info("%s is gone", child)
            self.record = after_life(self.record, ready_for)
            return
        if _may_be_a_requests_doing(child, cause) and (
            explained := await self._inquest(child, cause)
        ):
            self._note_death(child, cause)
            self.record = after_verdict(after_life(self.record, ready_for), explained - 1)
        elif not await self._eases(cause):
            self._note_death(child, cause)
            self.record = after_death(self.record, now, ready_for, random.random())

    def _note_death(self, child: Child, cause: Cause) -> None:
        log.warning("%s died: %s", child, cause.words)
        self.last_failure = ModelUnavailable(f'model "{self.model}" died: {cause.words}')

    async def _inquest(self, child: Child, cause: Cause) -> int:
        """How many deaths are laid to requests by that of this child; 0 if it is the model's.

        They say themselves what they are, on their way out.
        """
        with trio.move_on_after(_TESTIMONY_PATIENCE):
            await child.until_unused()
        now = trio.current_time()
        explained = self.suspects.note_death(
            child.accused, child.in_flight, now, from_outside=cause.kind is Kind.KILLED
        )
        child.death = self.suspects.deaths
        if explained:
            log.warning(
                "%s: %d deaths are laid to a request, which is refused for a while",
                self.model,
                explained,
            )
        return explained

    async def _eases(self, cause: Cause) -> bool:
        """If it ran out of memory: can the next child have more, or take less?"""
        if cause.kind is not Kind.OUT_OF_MEMORY:
            return False
        return await self._gets_room() or self._steps_down(cause)

    async def _gets_room(self) -> bool:
        """First the idle go, each once, and the same rung is tried again: one or two at first, then
        twice as many, for each try may take long."""
        victims = self._victims()
        if not victims:
            return False
        log.warning("%s: out of memory: %s goes first", self.model, ", ".join(victims))
        self._position.made_way.update(victims)
        self._position.stay()
        await self._landlord.make_way(victims)
        return True

    def _victims(self) -> list[str]:
        gone = self._position.made_way
        return [model for model in self._could_go() if model not in gone][: max(len(gone), 1)]

    def _could_go(self) -> Sequence[str]:
        return self._landlord.dispensable(self, self._needed) if self._needed else ()

    def _is_crowded(self) -> bool:
        return self._needed is not None and self._landlord.crowds(self, self._needed)

    def _steps_down(self, cause: Cause) -> bool:
        """Then the context: take the next rung, if there is one."""
        crowded = self._is_crowded()
        if not self._position.step_down(cause.words, crowded=crowded, proven=cause.proven):
            return False
        log.warning("%s: out of memory (%s): next rung, %s", self.model, cause.words, self.rung)
        return True

    async def _tries_again(self, load: _Load, cause: Cause) -> bool:
        """Once in a load, on the same rung: what ended it may have been an accident."""
        self._note_failed_start(cause)
        wait = self.record.wait(trio.current_time())
        hopeless = self.record.given_up or cause.kind is Kind.OUT_OF_MEMORY
        if hopeless or load.tried_again or wait > self.plan.patience:
            return False
        log.warning("%s could not be started and is tried again: %s", self.model, cause.words)
        load.tried_again = True
        self._position.stay()
        await trio.sleep(wait)
        return True

    def _note_failed_start(self, cause: Cause) -> None:
        """`restarts` decides about the next start."""
        now = trio.current_time()
        self.record = after_failed_start(self.record, now, cause.kind, random.random())
        if self.record.given_up:
            self._given_up_in = self._begun_in

    def _fail(self, load: _Load, cause: Cause) -> None:
        """Nothing more to try: whoever waits is told."""
        if cause.kind is Kind.OUT_OF_MEMORY:
            self._crowded_out = self._is_crowded()
            tried = self._position.story()
            message = f'model "{self.model}" does not fit into memory; tried {tried}'
            load.failure = OutOfMemory(message)
        else:
            message = f'model "{self.model}" cannot be started: {cause.words}'
            load.failure = _ERRORS.get(cause.kind, ModelUnavailable)(message)
        self.last_failure = load.failure
        log.error("%s", message)


def _may_be_a_requests_doing(child: Child, cause: Cause) -> bool:
    gave_up = child.left and cause.kind is Kind.OUT_OF_MEMORY and not cause.proven
    return gave_up or cause.kind in _LAID_TO_REQUESTS

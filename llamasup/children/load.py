"""One load: down the ladder to a child that is ready, and what became of that child.

It may take several children. After one has run out of memory, the next one tries the same rung as
long as an idle model can be unloaded for it, and otherwise the next rung. After any other failed
start the same rung is tried once more, because that may have been an accident. The first child that
gets ready is the last one.

When the model gets a new plan, the load is out of date: it does not wait for memory any more, and a
child that is or gets ready only finishes the answers that it has begun.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from attrs import evolve

from llamasup import tending
from llamasup.children.child import Child
from llamasup.children.descent import Descent
from llamasup.children.history import History
from llamasup.children.inquest import may_be_a_requests_doing
from llamasup.children.landlord import Place
from llamasup.children.plan import Plan
from llamasup.children.suspects import Suspects
from llamasup.engine.failures import Cause, Kind
from llamasup.errors import (
    EngineUnusable,
    LlamasupError,
    ModelFileMissing,
    ModelUnavailable,
    NotAdmitted,
    OutOfMemory,
    RemoteUnavailable,
    TaskFell,
)
from llamasup.events import (
    ChildDied,
    ChildGone,
    ChildRetires,
    DeathsExplained,
    Journal,
    LoadBegan,
    LoadFailed,
    LoadProgressed,
    LoadRefused,
    Ready,
    StartFailed,
    StateChanged,
    SteppedUp,
)
from llamasup.memory.ladder import Rung
from llamasup.states import AT_REST, HAS_CHILD, OUT_OF_DATE, ChildState, KeeperState, moved

_NOTE_PATIENCE = 1.0
_TESTIMONY_PATIENCE = 1.0

_ERRORS = {
    Kind.ENGINE_UNUSABLE: EngineUnusable,
    Kind.MISSING_FILE: ModelFileMissing,
    Kind.REMOTE: RemoteUnavailable,
}


class Load:
    """One load, from the wait before the first child to the end of the last one."""

    def __init__(
        self,
        state: KeeperState,
        descent: Descent,
        history: History,
        suspects: Suspects,
        is_wanted: Callable[[], bool],
        journal: Journal,
    ) -> None:
        """`state` is the keeper's until now. While `is_wanted`, the load waits for a place."""
        self.state = moved(state, KeeperState.LOADING)
        self.settled = trio.Event()
        """Set when the child is ready, or when there will be none."""

        self.over = trio.Event()
        """Set when the child is gone, or when there was none."""

        self.failure: LlamasupError | None = None
        """The error for requests that wait for the load; None if it is out of date."""

        self.child: Child | None = None
        """The child, from when it is ready to its end."""

        self.starting: Child | None = None
        self._descent = descent
        self._history = history
        self._suspects = suspects
        self._is_wanted = is_wanted
        self._journal = journal
        self._waiting = trio.CancelScope()
        self._begun_in: object = None
        self._tried_again = False
        journal.tell(StateChanged(self._model, self.state))

    @property
    def is_out_of_date(self) -> bool:
        """Has the model got a new plan since the load began?"""
        return self.state in OUT_OF_DATE

    @property
    def _plan(self) -> Plan:
        return self._descent.position.plan

    @property
    def _model(self) -> str:
        return self._plan.model

    async def run(self, wait: float) -> bool:
        """Wait for `wait` seconds, then load. Returns when the child is gone, or if there is none.

        True if the child is missed: if it died, or could not be started. If this is cancelled, the
        child is ended. The caller has to call `finish` afterwards, in any case.
        """
        try:
            await self._history.rest(wait, self._plan.circumstances)
            # Not later, when the load has failed: the reason may have changed by then.
            self._begun_in = await self._plan.circumstances()
            return await self._serve()
        except NotAdmitted as error:
            # This says nothing against the model: at the next request there may be room.
            self._history.last_failure = self.failure = error
            self._journal.tell(LoadRefused(self._model, str(error)))
            return False
        except LlamasupError as error:
            # What is not the engine's fault may be temporary, such as a range without a free port.
            kind = next((kind for kind, known in _ERRORS.items() if type(error) is known), None)
            self._fail_at_once(kind or Kind.SHORTAGE, str(error))
            return True
        except Exception as error:
            # This ends only this load. The next one may fall as well, so it has to wait.
            # The failure is set first: the lines below may fall, too.
            self.failure = TaskFell(f'the keeper of "{self._model}" fell; ask again')
            why = tending.tell_of_fall(f"the keeper of {self._model}", error)
            self._fail_at_once(Kind.SHORTAGE, why)
            return True

    def finish(self) -> None:
        """The load is over, however `run` ended."""
        self.child = self.starting = None
        if self.is_out_of_date:
            self.failure = None
        self._move(KeeperState.FAILED if self.failure else KeeperState.UNLOADED)

    def overtake(self, why: str) -> None:
        """The model has a new plan: a running child ends after its last answer."""
        if self.state is KeeperState.READY:
            self._move(KeeperState.LEAVING)
            if self.child is not None and self.child.state is ChildState.READY:
                self._journal.tell(ChildRetires(self._model, str(self.child), why))
                self.child.retire(Cause(Kind.FINISHED, why))
        elif not self.is_out_of_date:
            self._move(KeeperState.OVERTAKEN)
            self.reconsider()

    def reconsider(self) -> None:
        """Stop waiting for a place if the child is not wanted any more."""
        if self.is_out_of_date or not self._is_wanted():
            self._waiting.cancel()

    def _move(self, to: KeeperState) -> None:
        self.state = moved(self.state, to)
        self._journal.tell(StateChanged(self._model, to))
        if to in HAS_CHILD or to in AT_REST:
            self.settled.set()
        if to in AT_REST:
            self.over.set()

    async def _serve(self) -> bool:
        """Run children until one was ready and is gone, or there can be none, or none is wanted.

        Returns whether a child is missed.
        """
        ran_out = False
        while True:
            child = await self._run_one()
            if child is None:
                return False
            if child.cause is not None:
                child.cause = await self._plan.explained(child.cause)
            if self.state in HAS_CHILD:
                try:
                    await self._note_end(child)
                finally:
                    child.inquest.over.set()
                return child.cause is not None
            assert child.cause is not None  # the child never got ready
            cause = child.cause
            if ran_out and cause.kind is Kind.SHORTAGE:
                cause = evolve(cause, kind=Kind.OUT_OF_MEMORY)  # threads take memory, too
            ran_out = cause.kind is Kind.OUT_OF_MEMORY
            if not (await self._descent.prepares_next(cause) or await self._tries_again(cause)):
                self._fail(cause)
                return True

    async def _run_one(self) -> Child | None:
        """Run one child in a place of its own; None if it was not wanted any more."""
        rung = await self._descent.next_rung()
        place = await self._place()
        if place is None:
            return None
        async with place:
            child = await self._plan.child(rung)
            self._journal.tell(LoadBegan(self._model, str(rung)))
            child.tells_progress = self._tell_of_progress
            place.occupy(child)
            try:
                await self._run_child(child, place)
            finally:
                if child.resident and not self.is_out_of_date:
                    await self._note(rung, child.resident)
        return child

    async def _place(self) -> Place | None:
        if self.is_out_of_date:
            return None
        with trio.CancelScope() as self._waiting:
            self.reconsider()  # all requests that wanted it may have left meanwhile
            self._move(KeeperState.WAITING)
            place = await self._descent.place()
            if not self.is_out_of_date:
                self._move(KeeperState.LOADING)
            return place
        return None

    async def _run_child(self, child: Child, place: Place) -> None:
        """Run the child, from its start to its end."""
        self._history.loads += 1
        self.starting = child
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            await child.settled.wait()
            self.starting = None
            if child.state is ChildState.READY:
                await self._note_ready(child, place, trio.current_time() - started)

    async def _note(self, rung: Rung, resident: int) -> None:
        """Remember how much memory a child took. Even the end of llamasup waits a moment for
        this."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _NOTE_PATIENCE):
            await self._plan.measured(rung, resident)

    async def _note_ready(self, child: Child, place: Place, seconds: float) -> None:
        is_out_of_date = self.is_out_of_date
        self._move(KeeperState.LEAVING if is_out_of_date else KeeperState.READY)
        self.child = child
        self._history.note_ready()
        self._journal.tell(Ready(self._model, str(child), seconds, str(self._descent.rung)))
        if is_out_of_date:
            child.retire(Cause(Kind.FINISHED, "its configuration changed while it was loaded"))
        else:
            place.ready()
            if await self._descent.position.held():
                self._journal.tell(SteppedUp(self._model, str(self._descent.rung)))

    async def _tries_again(self, cause: Cause) -> bool:
        """Try the same rung again, once in a load: what ended the child may have been an
        accident."""
        self._history.note_failed_start(cause, self._begun_in)
        wait = self._history.wait()
        hopeless = self._history.record.given_up or cause.kind is Kind.OUT_OF_MEMORY
        if hopeless or self._tried_again or wait > self._plan.patience:
            return False
        self._journal.tell(StartFailed(self._model, cause.words))
        self._tried_again = True
        self._descent.position.stay()
        await trio.sleep(wait)
        return True

    def _fail_at_once(self, kind: Kind, words: str) -> None:
        cause = Cause(kind, words)
        self._history.note_failed_start(cause, self._begun_in)
        self._fail(cause)

    def _fail(self, cause: Cause) -> None:
        """There is nothing more to try: all waiting requests get an error."""
        if cause.kind is Kind.OUT_OF_MEMORY:
            self._history.crowded_out = self._descent.is_crowded()
            tried = self._descent.position.story()
            message = f'model "{self._model}" does not fit into memory; tried {tried}'
            self.failure = OutOfMemory(message)
        else:
            message = f'model "{self._model}" cannot be started: {cause.words}'
            self.failure = _ERRORS.get(cause.kind, ModelUnavailable)(message)
        self._history.last_failure = self.failure
        self._journal.tell(LoadFailed(self._model, message, given_up=self._history.record.given_up))

    async def _note_end(self, child: Child) -> None:
        """A child was ready and is gone: decide on which rung the next one begins, and when."""
        cause = child.cause
        now = trio.current_time()
        ready_for = now - child.ready_at
        if cause is None or (cause.kind is Kind.FINISHED and not child.left):
            self._journal.tell(ChildGone(self._model, str(child)))
            self._history.note_life(ready_for)
            return
        if may_be_a_requests_doing(cause, by_itself=child.left) and (
            explained := await self._inquest(child, cause)
        ):
            self._tell_of_death(child, cause)
            self._history.note_explained(ready_for, explained - 1)
        elif not await self._descent.prepares_next(cause):
            self._tell_of_death(child, cause)
            self._history.note_death(now, ready_for)

    def _tell_of_death(self, child: Child, cause: Cause) -> None:
        self._journal.tell(ChildDied(self._model, str(child), cause.words))
        words = f'model "{self._model}" died: {cause.words}'
        self._history.last_failure = ModelUnavailable(words)

    async def _inquest(self, child: Child, cause: Cause) -> int:
        """How many deaths, with this child's, are now blamed on a request; 0 if the model's own."""
        with trio.move_on_after(_TESTIMONY_PATIENCE):
            await child.until_unused()
        explained = child.inquest.conclude(cause, self._suspects)
        if explained:
            self._journal.tell(DeathsExplained(self._model, explained))
        return explained

    def _tell_of_progress(self, part: float) -> None:
        self._journal.tell(LoadProgressed(self._model, part))

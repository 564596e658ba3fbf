"""A lease on a child of ours, and what the pool learns from how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import trio
from attrs import evolve

from llamasup.access.headers import SECRETS
from llamasup.children.child import Child
from llamasup.children.suspects import Accused
from llamasup.config.addresses import Address
from llamasup.errors import OutOfMemory
from llamasup.http.requests import Request
from llamasup.http.wire import Wire, dial
from llamasup.pool.gate import Gate, Visit
from llamasup.pool.lease import Lease
from llamasup.states import ChildState
from llamasup.upstream import Signature, Verdict

_VERDICT_PATIENCE = 2.0
_NOTE_PATIENCE = 3.0


class ChildLease(Lease):
    """Holds, within `async with`, a child that is ready and, if the work needs one, a slot of it.

    Entering loads the model and waits for the request's turn. It raises ModelUnavailable if the
    model cannot be started, QueueFull and QueueTimeout, and RequestKillsEngine if the request has
    ended children of this model. If it is cancelled while it waits, nothing is held.

    If the child broke off, leaving takes a moment, even when cancelled: the request is noted as one
    that may have ended the child.
    """

    def __init__(
        self, gate: Gate, visit: Visit, digest: Callable[[], Awaitable[bytes]] | None
    ) -> None:
        self._gate = gate
        self._visit = visit
        self._digest = digest
        self._child: Child
        self._is_broken = False
        self._broke_on_trial = False
        self._ran_out_of_memory = False

    def __str__(self) -> str:
        return "the engine"

    @property
    def signature(self) -> Signature:
        """See `Upstream.signature`."""
        return self._child.signature

    @property
    def address(self) -> Address:
        """The address at which the child answers."""
        return self._child.address

    async def connect(self) -> Wire:
        """See `Upstream.connect`."""
        return await dial(self.address)

    def head_for(self, request: Request, target: bytes) -> bytes:
        """See `Upstream.head_for`. Clients' secrets are left out, unless the engine asks for
        keys."""
        return request.forwarded(target, () if self._child.launch.asks_for_keys else SECRETS)

    def outlook(self) -> str:
        """See `Lease.outlook`."""
        return self._gate.outlook(self._visit)

    async def survived(self) -> bool:
        """See `Upstream.survived`."""
        return await self._child.survived()

    def progressed(self) -> None:
        """See `Upstream.progressed`."""
        self._child.last_progress = trio.current_time()

    def blocked_by_client(self) -> AbstractContextManager[None]:
        """See `Upstream.blocked_by_client`."""
        return self._blocked()

    @contextmanager
    def _blocked(self) -> Iterator[None]:
        self._child.blocked_by_clients += 1
        try:
            yield
        finally:
            self._child.blocked_by_clients -= 1
            self.progressed()

    def judge(self, status: int, message: str, size: int) -> Verdict:
        """See `Upstream.judge`."""
        return self._child.manners.verdict(status, message, size)

    def note_out_of_memory(self, words: str) -> bool:
        """The child said in `words` that memory ran out. True if another child will follow, so that
        the request is worth sending again.

        However often the child says so in one answer, it counts once.
        """
        if self._ran_out_of_memory:
            return self._child.state is not ChildState.READY
        self._ran_out_of_memory = True
        return self._gate.keeper.note_out_of_memory(self._child, words)

    def exhausted(self, words: str) -> OutOfMemory:
        """See `Lease.exhausted`: no rung could answer."""
        return self._gate.keeper.exhausted(words)

    def broke_off(self) -> None:
        """See `Lease.broke_off`."""
        self._is_broken = True
        self._broke_on_trial = self._gate.tries(self._visit)

    async def outcome(self) -> Callable[[], bool]:
        """Wait, after the lease, until it is known what the child's end means for the request.

        The function that is returned says whether another request is known to have caused that end;
        its answer may change later. This waits two seconds at most. Raises RequestKillsEngine if
        the request must not be sent again.
        """
        if self._child.state is not ChildState.READY:
            with trio.move_on_after(_VERDICT_PATIENCE):
                await self._child.inquest.over.wait()
            await self._must_be_alone()
        child, suspects = self._child, self._gate.keeper.suspects
        return lambda: suspects.is_explained(child.inquest.death)

    async def __aenter__(self) -> ChildLease:
        while True:
            alone = self._visit.alone = await self._must_be_alone()
            try:
                self._child = await self._gate.enter(self._visit)
            except trio.Cancelled:
                if alone:
                    await self._note_vain_trial()
                raise
            try:
                # While this request waited, the same request of another client may have been tried.
                is_suspect = await self._must_be_alone()
            except BaseException:
                self._gate.leave(self._visit)
                raise
            if alone or not is_suspect:
                return self
            self._gate.leave(self._visit)
            self._visit.child = None

    async def _must_be_alone(self) -> bool:
        suspects = self._gate.keeper.suspects
        if not suspects or (digest := await self._digest_if_any()) is None:
            return False
        return suspects.must_be_alone(digest, self._visit.client(), trio.current_time())

    async def _digest_if_any(self) -> bytes | None:
        """The request's digest; None if it has none, or if no thread is free to make it."""
        if self._digest is not None:
            with suppress(OSError):
                return await self._digest()
        return None

    async def __aexit__(self, *error: object) -> None:
        try:
            if self._is_broken:
                await self._note_in_flight()
            elif any(error):
                await self._note_abandoned()
            elif self._visit.alone and (digest := await self._digest_if_any()):
                self._gate.keeper.suspects.acquit(digest, self._visit.client())
        finally:
            self._gate.leave(self._visit)

    async def _note_in_flight(self) -> None:
        """If the child is dead, or about to die, note that this request was in flight."""
        with _shielded():
            if not await self._child.survived() and (accused := await self._accused()):
                self._child.inquest.accused.append(accused)

    async def _note_abandoned(self) -> None:
        """The client does not wait for the answer: note the request, which may still end the
        child."""
        with _shielded():
            if accused := await self._accused():
                self._child.note_abandoned(evolve(accused, abandoned=True))
        if self._visit.alone:
            await self._note_vain_trial()

    async def _note_vain_trial(self) -> None:
        with _shielded():
            if accused := await self._accused():
                suspects = self._gate.keeper.suspects
                suspects.note_vain_trial(accused.digest, accused.client)

    async def _accused(self) -> Accused | None:
        if (digest := await self._digest_if_any()) is None:
            return None
        return Accused(digest, self._visit.client(), on_trial=self._broke_on_trial)


def _shielded() -> trio.CancelScope:
    """A scope, bounded in time, in which a request can be noted although its client has left."""
    return trio.CancelScope(shield=True, deadline=trio.current_time() + _NOTE_PATIENCE)


class ChildGlance(ChildLease):
    """A look at a child that is loaded already. It holds nothing, does not keep the child loaded,
    and its result says nothing about the child.

    Entering raises ModelNotLoaded if there is no child, and QueueFull if too many look at once.
    """

    def progressed(self) -> None:
        """The answer to a look is no progress of the child's work."""

    def blocked_by_client(self) -> AbstractContextManager[None]:
        """A look is none of the child's requests, so it cannot be among the blocked ones."""
        return nullcontext()

    def judge(self, status: int, message: str, size: int) -> Verdict:
        """An error in a look never ends the child."""
        return Verdict.ITS_OWN

    async def __aenter__(self) -> ChildLease:
        self._look = self._gate.look()
        self._child = self._look.__enter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._look.__exit__(None, None, None)

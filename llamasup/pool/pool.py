"""The pool hands out leases: one request's permission to use one child.

async with pool.lease("qwen3", Work.GENERATE) as lease:
    ... lease.address ...
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import trio
from attrs import evolve

from llamasup import tending
from llamasup.access.keys import SECRETS
from llamasup.children.child import Child
from llamasup.children.keeper import Keeper
from llamasup.children.plan import Plan
from llamasup.children.suspects import Accused
from llamasup.config.addresses import Address
from llamasup.config.in_effect import InEffect
from llamasup.engine.failures import verdict_on_reply
from llamasup.errors import LlamasupError, ModelNotFound, OutOfMemory
from llamasup.events import Journal
from llamasup.http.requests import Request
from llamasup.http.wire import Wire, dial
from llamasup.memory.gauge import Gauge
from llamasup.pool.gate import Gate, Visit
from llamasup.pool.queue import Client
from llamasup.pool.residency import Residency
from llamasup.pool.work import Work
from llamasup.states import ChildState
from llamasup.upstream import Upstream, Verdict

log = logging.getLogger(__name__)

_VERDICT_PATIENCE = 2.0
_NOTE_PATIENCE = 3.0


class Pool:
    """A gate and a keeper for every model; their tasks live in `nursery`."""

    def __init__(
        self,
        plans: Iterable[Plan],
        in_effect: InEffect,
        gauge: Gauge,
        journal: Journal,
        nursery: trio.Nursery,
    ) -> None:
        self._in_effect = in_effect
        self._nursery = nursery
        self._journal = journal
        self._gates: dict[str, Gate] = {}
        self.residency = Residency(in_effect, self._gates, gauge, journal)
        self.offer(plans)
        nursery.start_soon(tending.again, "the residency's clock", self.residency.run)

    @property
    def keepers(self) -> dict[str, Keeper]:
        """Every model's keeper by its name."""
        return {model: gate.keeper for model, gate in self._gates.items()}

    def offer(self, plans: Iterable[Plan]) -> None:
        """Offer these models from now on, and no others.

        A child ends after its answers if its model is not offered any more, or would now be
        launched differently. A model that is not offered any more is still shown while its child is
        there.
        """
        planned = {plan.model: plan for plan in plans}
        for model, gate in list(self._gates.items()):
            if model not in planned and not gate.keeper.dismissed:
                self._withdraw(gate)
        for model, plan in planned.items():
            if model in self._gates:
                self._gates[model].keeper.follow(plan)
            else:
                self._gates[model] = self._gate(plan)

    def _withdraw(self, gate: Gate) -> None:
        gate.turn_away(ModelNotFound(f'there is no model "{gate.keeper.model}" any more'))
        gate.keeper.dismiss()
        if gate.keeper.idle:
            del self._gates[gate.keeper.model]
        else:
            self._nursery.start_soon(tending.alone, "a withdrawal", self._until_gone, gate)

    async def _until_gone(self, gate: Gate) -> None:
        """Forget the model when its child is gone, unless it is offered again by then."""
        await gate.keeper.until_idle()
        model = gate.keeper.model
        if gate.keeper.dismissed and self._gates.get(model) is gate:
            del self._gates[model]

    def preload(self, models: Iterable[str]) -> None:
        """Load these models without a request."""
        for model in models:
            if model in self._gates:
                keeper = self._gates[model].keeper
                self._nursery.start_soon(tending.alone, "a preload", self._preload, keeper)
            else:
                log.warning("%s cannot be preloaded: there is no such model", model)

    async def _preload(self, keeper: Keeper) -> None:
        try:
            await keeper.ready()
        except LlamasupError:
            log.warning("%s could not be preloaded; its next request tries again", keeper.model)

    def summary(self) -> str:
        """One line about what is loaded and in flight, for systemd."""
        children = [gate.keeper.child for gate in self._gates.values() if gate.keeper.child]
        in_flight = sum(child.users for child in children)
        loaded = f"{len(children)} of {len(self._gates)} models loaded"
        return f"{loaded}, {in_flight} requests in flight"

    def waiting(self, model: str) -> int:
        """How many requests wait for the model."""
        return self._gates[model].waiting

    def lease(
        self,
        model: str,
        work: Work,
        *,
        client: Callable[[], Client] = Client,
        priority: int = 0,
        digest: Callable[[], Awaitable[bytes]] | None = None,
    ) -> Lease:
        """A lease on `model` for `work`, to be used with `async with`.

        A request that has to wait takes turns with those of other clients, and gets its turn sooner
        with a higher `priority`; `client` is called only in that case. `digest` identifies a
        request that may have ended a child; it is called after a death, and when a client leaves
        without its answer. A request without a digest is never held responsible for a death.
        """
        if work is Work.LOOK:
            return Glance(self._gates[model], Visit(work, client, priority), None)
        return Lease(self._gates[model], Visit(work, client, priority), digest)

    def _gate(self, plan: Plan) -> Gate:
        keeper = Keeper(plan, self.residency, self._journal, self._nursery)
        return Gate(keeper, self._nursery, self._in_effect, self.residency.note_idle)


class Lease(Upstream):
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
        """What the request waits for, in words for its client."""
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
        return verdict_on_reply(status, message, size)

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
        """The error for a request that no rung could answer."""
        return self._gate.keeper.exhausted(words)

    def broke_off(self) -> None:
        """The child closed its connection in the middle of an answer, or before it."""
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

    async def __aenter__(self) -> Lease:
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


class Glance(Lease):
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

    async def __aenter__(self) -> Lease:
        self._look = self._gate.look()
        self._child = self._look.__enter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._look.__exit__(None, None, None)

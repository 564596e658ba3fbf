"""The pool hands out leases: one request's permission to use one child.

async with pool.lease("qwen3", Work.GENERATE) as lease:
    ... lease.address ...
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import trio

from llamasup import tending
from llamasup.children.keeper import Keeper
from llamasup.children.plan import Plan
from llamasup.config.in_effect import InEffect
from llamasup.endpoints.fleet import Fleet
from llamasup.errors import LlamasupError, ModelNotFound
from llamasup.events import Journal, ModelsChanged
from llamasup.memory.gauge import Gauge
from llamasup.models.purpose import Purpose
from llamasup.pool.child_lease import ChildGlance, ChildLease
from llamasup.pool.either_lease import EitherLease
from llamasup.pool.gate import Gate, Visit
from llamasup.pool.lease import Lease
from llamasup.pool.outside import Errand, Outside
from llamasup.pool.queue import Client
from llamasup.pool.remote_lease import RemoteGlance, RemoteLease
from llamasup.pool.residency import Residency
from llamasup.pool.trail import Trail
from llamasup.pool.work import Work
from llamasup.states import ChildState

log = logging.getLogger(__name__)

Leasing = Lease | EitherLease
"""What is entered with `async with`, and gives a lease that holds its upstream."""


class Pool:
    """A gate and a keeper for every model; their tasks live in `nursery`."""

    def __init__(
        self,
        plans: Iterable[Plan],
        in_effect: InEffect,
        gauge: Gauge,
        journal: Journal,
        nursery: trio.Nursery,
        outside: Outside | None = None,
    ) -> None:
        """`outside` has the models of instances elsewhere; without it there are none."""
        self.outside = outside or Outside(Fleet(journal, nursery), in_effect)
        self.consumption = self.outside.consumption
        self._in_effect = in_effect
        self.nursery = nursery
        """For tasks that live as long as the pool."""

        self._journal = journal
        self._gates: dict[str, Gate] = {}
        self._loading: set[Keeper] = set()
        """The keepers of models that are loaded without a request."""

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
        before = {model for model, gate in self._gates.items() if not gate.keeper.dismissed}
        for model, gate in list(self._gates.items()):
            if model not in planned and not gate.keeper.dismissed:
                self._withdraw(gate)
        for model, plan in planned.items():
            if model in self._gates:
                self._gates[model].keeper.follow(plan)
            else:
                self._gates[model] = self._gate(plan)
        if before != planned.keys():
            self._journal.tell(ModelsChanged())

    def _withdraw(self, gate: Gate) -> None:
        gate.turn_away(ModelNotFound(f'there is no model "{gate.keeper.model}" any more'))
        gate.keeper.dismiss()
        if gate.keeper.idle:
            del self._gates[gate.keeper.model]
        else:
            self.nursery.start_soon(tending.alone, "a withdrawal", self._until_gone, gate)

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
                self.load(model)
            else:
                log.warning("%s cannot be preloaded: there is no such model", model)

    def load(self, model: str) -> None:
        """Begin to load this model, unless that was begun already, or done. A failure is only
        logged."""
        keeper = self._gates[model].keeper
        is_there = keeper.child is not None and keeper.child.state is ChildState.READY
        if keeper not in self._loading and not is_there:
            self._loading.add(keeper)
            self.nursery.start_soon(tending.alone, "a preload", self._preload, keeper)

    async def _preload(self, keeper: Keeper) -> None:
        try:
            await keeper.ready()
        except LlamasupError:
            log.warning("%s could not be preloaded; its next request tries again", keeper.model)
        finally:
            self._loading.discard(keeper)

    def unload(self, model: str) -> None:
        """Unload this model when its requests are answered; the next one loads it again."""
        self._gates[model].keeper.put_away()

    def let_go(self, model: str) -> None:
        """Its client needs the model no more: unload it, unless others use it, or the operator
        keeps it in memory."""
        self.residency.let_go(model)

    def summary(self) -> str:
        """One line about what is loaded and in flight, for systemd."""
        children = [gate.keeper.child for gate in self._gates.values() if gate.keeper.child]
        in_flight = sum(child.users for child in children)
        loaded = f"{len(children)} of {len(self._gates)} models loaded"
        return f"{loaded}, {in_flight} requests in flight"

    def waiting(self, model: str) -> int:
        """How many requests wait for the model."""
        gate = self._gates.get(model)
        return (gate.waiting if gate else 0) + self.outside.waiting(model)

    def is_held(self, model: str) -> bool:
        """Does the model let no request in, because it is the turn of others?"""
        gate = self._gates.get(model)
        return gate is not None and gate.held

    async def purpose(self, model: str) -> Purpose | None:
        """What the model is for; None if only its engine can tell."""
        gate = self._gates.get(model)
        return await gate.keeper.plan.purpose() if gate else None

    def lease(
        self,
        model: str,
        work: Work,
        *,
        client: Callable[[], Client] = Client,
        priority: int = 0,
        digest: Callable[[], Awaitable[bytes]] | None = None,
        prefix: Callable[[], bytes] = bytes,
        trail: Trail | None = None,
        here: bool = False,
        expected: bytes = b"",
    ) -> Leasing:
        """A lease on `model` for `work`, to be used with `async with`.

        A request that has to wait takes turns with those of other clients, and gets its turn sooner
        with a higher `priority`; `client` is called only in that case. `digest` identifies a
        request that may have ended a child; it is called after a death, and when a client leaves
        without its answer. A request without a digest is never held responsible for a death.

        `prefix` stands for the beginning of the conversation, and `trail` for where the request has
        been before; both matter only for instances elsewhere. None of them is used if the answer
        has to come from `here`. `expected` is what a llamasup in front of this one believes of the
        model: the request goes back to it if that has changed.
        """
        gate = self._gates.get(model)
        if here or not self.outside.has(model):
            if gate is None:
                raise ModelNotFound(f'there is no model "{model}" any more')
            return _own(gate, Visit(work, client, priority, expected), digest)
        kind = RemoteGlance if work is Work.LOOK else RemoteLease

        def remote() -> RemoteLease:
            errand = Errand(model, work, client, priority, prefix, trail or Trail())
            return kind(self.outside, errand)

        if gate is None or (work is Work.LOOK and gate.keeper.child is None):
            return remote()
        own = _own(gate, Visit(work, client, priority), digest)
        if work is Work.LOOK:
            return own
        return EitherLease(own, lambda: gate.is_free(work), remote)

    def _gate(self, plan: Plan) -> Gate:
        keeper = Keeper(plan, self.residency, self._journal, self.nursery)
        in_effect, consumption = self._in_effect, self.consumption
        return Gate(keeper, self.nursery, in_effect, self.residency.note_idle, consumption)


def _own(gate: Gate, visit: Visit, digest: Callable[[], Awaitable[bytes]] | None) -> ChildLease:
    if visit.work is Work.LOOK:
        return ChildGlance(gate, visit, None)
    return ChildLease(gate, visit, digest)

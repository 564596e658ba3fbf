"""The pool hands out leases: one request's permission to use one child.

async with pool.lease("qwen3", Work.GENERATE) as lease:
    ... lease.address ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

import trio

from llamasup.children.child import Child
from llamasup.children.keeper import Keeper
from llamasup.children.plan import Plan
from llamasup.config.addresses import Address
from llamasup.config.schema import Config
from llamasup.errors import OutOfMemory
from llamasup.memory.gauge import Gauge
from llamasup.pool.gate import Gate, Visit
from llamasup.pool.residency import Residency
from llamasup.pool.work import Work


class Pool:
    """A gate and a keeper for every model; their tasks live in `nursery`."""

    def __init__(
        self, plans: Iterable[Plan], config: Config, gauge: Gauge, nursery: trio.Nursery
    ) -> None:
        self._config = config
        self._nursery = nursery
        self._gates: dict[str, Gate] = {}
        self.residency = Residency(config, self._gates, gauge)
        self.adopt(plans)
        nursery.start_soon(self.residency.run)

    @property
    def keepers(self) -> dict[str, Keeper]:
        """Every model's keeper by its name."""
        return {model: gate.keeper for model, gate in self._gates.items()}

    def adopt(self, plans: Iterable[Plan]) -> None:
        """From now on these are the models.

        One that is gone, or has another plan, stays as it is until its child is gone, too, and
        somebody calls this again.
        """
        planned = {plan.model: plan for plan in plans}
        for model, gate in list(self._gates.items()):
            if gate.keeper.idle and planned.get(model) is not gate.keeper.plan:
                gate.keeper.dismiss()
                del self._gates[model]
        for model, plan in planned.items():
            if model not in self._gates:
                self._gates[model] = self._gate(plan)

    def summary(self) -> str:
        """One line for whoever watches from outside."""
        children = [gate.keeper.child for gate in self._gates.values() if gate.keeper.child]
        in_flight = sum(child.users for child in children)
        loaded = f"{len(children)} of {len(self._gates)} models loaded"
        return f"{loaded}, {in_flight} requests in flight"

    def waiting(self, model: str) -> int:
        """How many requests wait for it."""
        return self._gates[model].waiting

    def lease(
        self, model: str, work: Work, *, key: Callable[[], str] = str, priority: int = 0
    ) -> Lease:
        """A lease on `model` for `work`, to be entered.

        Who has to wait does so by `priority`, the higher the sooner, and among equals takes turns
        with those of another `key`, which is asked for only then.
        """
        return Lease(self._gates[model], Visit(work, key, priority))

    def _gate(self, plan: Plan) -> Gate:
        keeper = Keeper(plan, self.residency, self._nursery)
        return Gate(keeper, self._nursery, self._config.pool, self.residency.idle)


class Lease:
    """Held from `async with`: a child that is ready and, where the work needs one, a slot of it.

    Entering loads the model and waits its turn. It raises ModelUnavailable if the model cannot be
    started, QueueFull and QueueTimeout. Cancelled while waiting, it holds nothing.
    """

    def __init__(self, gate: Gate, visit: Visit) -> None:
        self._gate = gate
        self._visit = visit
        self._child: Child

    @property
    def address(self) -> Address:
        """Where the child answers."""
        return self._child.address

    def __str__(self) -> str:
        return "the engine"

    def outlook(self) -> str:
        """For a client that waits: for what."""
        return self._gate.outlook(self._visit)

    async def survived(self) -> bool:
        """Is the child still well, now that it has closed a connection without a word?"""
        return await self._child.survived()

    def progressed(self) -> None:
        """Something of an answer came."""
        self._child.last_progress = trio.current_time()

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """For as long as the client takes nothing more: the child is not to blame."""
        self._child.held_up += 1
        try:
            yield
        finally:
            self._child.held_up -= 1
            self.progressed()

    def out_of_memory(self, words: str) -> bool:
        """The child says so. True if it goes, and the request is worth sending again."""
        return self._gate.keeper.out_of_memory(self._child, words)

    def exhausted(self, words: str) -> OutOfMemory:
        """The error for a request that no rung could answer."""
        return self._gate.keeper.exhausted(words)

    async def __aenter__(self) -> Lease:
        self._child = await self._gate.enter(self._visit)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._gate.leave(self._visit)

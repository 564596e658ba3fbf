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
from llamasup.children.slots import SlotsClosed
from llamasup.config.addresses import Address
from llamasup.errors import OutOfMemory
from llamasup.pool.work import Work
from llamasup.states import KeeperState


class Pool:
    """A keeper for every model; its tasks live in `nursery`."""

    def __init__(self, plans: Iterable[Plan], nursery: trio.Nursery) -> None:
        self.keepers = {plan.model: Keeper(plan, nursery) for plan in plans}

    def summary(self) -> str:
        """One line for whoever watches from outside."""
        ready = [name for name, keeper in self.keepers.items() if keeper.child]
        in_flight = sum(keeper.child.users for keeper in self.keepers.values() if keeper.child)
        return f"{len(ready)} of {len(self.keepers)} models loaded, {in_flight} requests in flight"

    def lease(
        self, model: str, work: Work, *, key: Callable[[], str] = str, priority: int = 0
    ) -> Lease:
        """A lease on `model` for `work`, to be entered.

        Who has to wait does so by `priority`, the higher the sooner, and among equals takes turns
        with those of another `key`, which is asked for only then.
        """
        return Lease(self.keepers[model], work, key, priority)


class Lease:
    """Held from `async with`: a child that is ready and, where the work needs one, a slot of it.

    Entering loads the model and waits its turn; it raises ModelUnavailable if the model cannot be
    started. Cancelled while waiting, it holds nothing.
    """

    def __init__(self, keeper: Keeper, work: Work, key: Callable[[], str], priority: int) -> None:
        self._keeper = keeper
        self._needs_slot = work is Work.GENERATE
        self._key = key
        self._priority = priority
        self._child: Child

    @property
    def address(self) -> Address:
        """Where the child answers."""
        return self._child.address

    def __str__(self) -> str:
        return "the engine"

    def outlook(self) -> str:
        """For a client that waits: for what."""
        if self._keeper.state is KeeperState.READY:
            return f"waiting for a slot of {self._keeper.model}"
        return f"loading {self._keeper.model}"

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
        return self._keeper.out_of_memory(self._child, words)

    def exhausted(self, words: str) -> OutOfMemory:
        """The error for a request that no rung could answer."""
        return self._keeper.exhausted(words)

    async def __aenter__(self) -> Lease:
        while True:
            child = await self._keeper.ready()
            try:
                if self._needs_slot:
                    await child.slots.take()
            except SlotsClosed:
                continue
            child.enter()
            self._child = child
            return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._child.leave()
        if self._needs_slot:
            self._child.slots.give_back()

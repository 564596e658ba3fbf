"""The pool hands out leases: one request's permission to use one child.

async with pool.lease("qwen3", Work.GENERATE) as lease:
    ... lease.address ...
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import TracebackType

import trio

from llamasup.children.child import Child
from llamasup.children.keeper import Keeper
from llamasup.children.launcher import Launcher
from llamasup.children.slots import SlotsClosed
from llamasup.config.addresses import Address
from llamasup.pool.work import Work


class Pool:
    """A keeper for every model; its tasks live in `nursery`."""

    def __init__(self, models: Iterable[str], launcher: Launcher, nursery: trio.Nursery) -> None:
        self.keepers = {
            model: Keeper(model, partial(launcher.child, model), nursery) for model in models
        }

    def lease(self, model: str, work: Work) -> Lease:
        """A lease on `model` for `work`, to be entered."""
        return Lease(self.keepers[model], work)


class Lease:
    """Held from `async with`: a child that is ready and, where the work needs one, a slot of it.

    Entering loads the model and waits its turn; it raises ModelUnavailable if the model cannot be
    started. Cancelled while waiting, it holds nothing.
    """

    def __init__(self, keeper: Keeper, work: Work) -> None:
        self._keeper = keeper
        self._needs_slot = work is Work.GENERATE
        self._child: Child

    @property
    def address(self) -> Address:
        """Where the child answers."""
        return self._child.address

    async def survived(self) -> bool:
        """Is the child still well, now that it has closed a connection without a word?"""
        return await self._child.survived()

    async def __aenter__(self) -> Lease:
        while True:
            child = await self._keeper.ready()
            try:
                if self._needs_slot:
                    await child.slots.take()
            except SlotsClosed:
                continue
            child.users += 1
            self._child = child
            return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._child.users -= 1
        if self._needs_slot:
            self._child.slots.give_back()

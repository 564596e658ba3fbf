"""A pool of the fake engine's models, and requests that hold its leases."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from llamasup import events
from llamasup.children.child import Child
from llamasup.children.launcher import Launcher
from llamasup.children.model_plan import ModelPlan
from llamasup.children.needs import Needs
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.learned import State
from llamasup.memory.gauge import Gauge
from llamasup.memory.machine import ThisMachine
from llamasup.pool.pool import Pool
from llamasup.pool.work import Work
from llamasup.processes.run_folder import own_run_folder

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def pool_of(
    config: Mapping[str, object],
    in_effect: InEffect | None = None,
    journal: events.Journal | None = None,
) -> AsyncIterator[Pool]:
    in_effect = in_effect or InEffect(load(None, {}, config))
    # pytest's own folders have names too long for a socket.
    with (
        tempfile.TemporaryDirectory(prefix="llamasup-test-") as base,
        own_run_folder(Path(base)) as (folder, _),
    ):
        whole = in_effect.config
        launcher = Launcher(in_effect, os.environ, Path(base), folder)
        state = State(Path(base) / "state.json")
        needs = Needs(launcher, state, Gauge(ThisMachine()))
        plans = [
            ModelPlan(model, settings, whole, launcher, state, needs)
            for model, settings in whole.models.items()
        ]
        async with trio.open_nursery() as nursery:
            journal = journal or events.Journal()
            yield Pool(plans, in_effect, Gauge(ThisMachine()), journal, nursery)
            nursery.cancel_scope.cancel()


def child_of(pool: Pool) -> Child:
    child = pool.keepers["fake"].child
    assert child is not None
    return child


class Requests:
    """Requests that hold their lease until they are told."""

    def __init__(self, pool: Pool, nursery: trio.Nursery) -> None:
        self.leased: list[int] = []
        self.addresses: list[object] = []
        self._pool = pool
        self._nursery = nursery
        self._done: list[trio.Event] = []

    async def come(self, work: Work = Work.GENERATE) -> trio.CancelScope:
        """One more comes, and waits if it must. The scope is its client's."""
        self._done.append(trio.Event())
        client = trio.CancelScope()
        self._nursery.start_soon(self._run, len(self._done) - 1, client, work)
        await wait_all_tasks_blocked()
        return client

    async def _run(self, number: int, client: trio.CancelScope, work: Work) -> None:
        with client:
            async with self._pool.lease("fake", work) as lease:
                self.leased.append(number)
                self.addresses.append(lease.address)
                await self._done[number].wait()

    async def finish(self, number: int) -> None:
        self._done[number].set()
        await wait_all_tasks_blocked()


@asynccontextmanager
async def requests_to(pool: Pool) -> AsyncIterator[Requests]:
    """Requests to a pool whose model is loaded."""
    async with pool.lease("fake", Work.ASK):
        pass
    async with trio.open_nursery() as nursery:
        yield Requests(pool, nursery)
        nursery.cancel_scope.cancel()

"""The pool's own time for each decision, in a pool of 200 models of which few are resident.

The pool is the real one, with its gates and keepers; only the children are none: they are ready at
once and gone at once. So most requests evict somebody, and hardly anything but deciding happens.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import trio

from llamasup.children.child import Child, Launch
from llamasup.children.needs import Needed, Source
from llamasup.children.plan import Plan
from llamasup.config.addresses import UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.engine.failures import Cause
from llamasup.events import Journal
from llamasup.memory.gauge import Gauge
from llamasup.memory.ladder import Rung
from llamasup.memory.readings import HOST, Device, Kind
from llamasup.pool import residency
from llamasup.pool.pool import Pool
from llamasup.pool.residency import Residency
from llamasup.pool.work import Work
from llamasup.states import ChildState
from tests.bench.measures import Bench, percentile
from tests.bench.report import Figure, Target

MODELS = 200
RESIDENT = (4, 8, 16)
CLIENTS = 4
SIZE = 1 << 30


class InstantChild(Child):
    """Ready as soon as it is started, and gone as soon as it is told."""

    async def run(self) -> None:
        self.state = ChildState.READY
        self.ready_at = self.last_used = trio.current_time()
        self.settled.set()
        with self._life:
            await trio.sleep_forever()
        self.state = ChildState.GONE


class InstantPlan:
    """A model of a gibibyte, on one rung, that remembers nothing."""

    is_open = preloaded = False
    idle_unload = patience = climb_interval = 0.0
    settings = SimpleNamespace(unloadable=True)
    slots = 1
    missing = ""

    def __init__(self, model: str) -> None:
        self.model = model

    async def rungs(self) -> list[Rung]:
        return [Rung()]

    async def need(self, rung: Rung, free: object = None) -> Needed:
        return Needed({HOST: SIZE}, Source.HEADER)

    async def circumstances(self) -> None:
        return None

    async def look_at_devices(self) -> None:
        pass

    async def explained(self, cause: Cause) -> Cause:
        return cause

    async def measured(self, rung: Rung, resident: int) -> None:
        pass

    async def learned(self) -> None:
        return None

    async def learn(self, learned: object) -> None:
        pass

    async def child(self, rung: Rung) -> Child:
        nothing: dict[str, Any] = {"argv": [], "environment": {}, "in_effect": None}
        address = UnixAddress("/nowhere.sock")
        launch = Launch(self.model, **nothing, address=address, slots=1)
        return InstantChild(launch, cast(Any, None))


class RoomForSome:
    """A gauge of a host with room for so many of these models."""

    def __init__(self, models: int) -> None:
        self._size = models * SIZE

    async def devices(self) -> list[Device]:
        return [Device(HOST, Kind.HOST, self._size, self._size)]


class Stopwatch:
    """CPU seconds that each decision of a residency took, read around it from outside."""

    def __init__(self, watched: Residency) -> None:
        self.seconds: list[float] = []
        self._decided = False
        watched.reconsider = self._timed(watched.reconsider)  # type: ignore[method-assign]

    def _timed(self, reconsider: Callable[[], None]) -> Callable[[], None]:
        def timed() -> None:
            self._decided = False
            before = time.thread_time()
            reconsider()
            took = time.thread_time() - before
            if self._decided:
                self.seconds.append(took)

        return timed

    def decide(self, *world: Any) -> Any:
        """Where nobody claims anything, this is not called, and there is nothing to time."""
        self._decided = True
        return _decide(*world)


_decide = residency.decide


def decisions(bench: Bench) -> list[Figure]:
    """At 4, 8 and 16 residents: the median, its growth, and the worst but one in a hundred."""
    p50 = {many: Figure(f"decision p50, {many} resident", "us") for many in RESIDENT}
    p99 = {
        many: Figure(f"decision p99, {many} resident", "us", target)
        for many, target in zip(RESIDENT, (Target("value", 100), None, None), strict=True)
    }
    few, most = RESIDENT[0], RESIDENT[-1]
    growth = Figure(f"  growth of p50, {few} to {most}", "x", Target("value", most / few))
    for _ in range(bench.pace.decision_rounds):
        for many in RESIDENT:
            took = trio.run(_measured, many, bench.pace.decision_requests)
            p50[many].add("llamasup", percentile(took, 50) * 1e6)
            p99[many].add("llamasup", percentile(took, 99) * 1e6)
        growth.add("llamasup", p50[most].rounds["llamasup"][-1] / p50[few].rounds["llamasup"][-1])
    return [*p50.values(), *p99.values(), growth]


async def _measured(resident: int, requests: int) -> list[float]:
    """Seconds of each decision that so many requests of a few clients led to."""
    config = load(None, {}, {"pool.memory_reserve": 0, "pool.idle_unload": 0})
    plans = [cast(Plan, InstantPlan(f"m{number}")) for number in range(MODELS)]
    async with trio.open_nursery() as nursery:
        pool = Pool(plans, InEffect(config), cast(Gauge, RoomForSome(resident)), Journal(), nursery)
        watch = Stopwatch(pool.residency)
        residency.decide = watch.decide
        try:
            async with trio.open_nursery() as clients:
                for seed in range(CLIENTS):
                    clients.start_soon(_client, pool, random.Random(seed), requests // CLIENTS)
        finally:
            residency.decide = _decide
        nursery.cancel_scope.cancel()
    return watch.seconds


async def _client(pool: Pool, chance: random.Random, requests: int) -> None:
    for _ in range(requests):
        async with pool.lease(f"m{chance.randrange(MODELS)}", Work.GENERATE):
            await trio.lowlevel.checkpoint()

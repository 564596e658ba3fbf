"""One long life under mixed load, in any weather: does llamasup stay flat?

Rounds of load, in which children die and stop for a moment, clients leave or send what no engine
survives, and the machine has troubles of its own; after each, when all is quiet and every model is
loaded again, a reading of memory, descriptors and tasks.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from statistics import median

import psutil
import trio
from attrs import frozen

from tests.chaos.load import KINDS, LONGEST_CHAIN, POISON, Request, Verdict
from tests.chaos.stage import Stage
from tests.chaos.subject import Subject, started
from tests.chaos.weather import Weather, weather
from tests.harness import eventually

MODELS = [f"m{number}" for number in range(12)]
CLIENTS = 4
ROUND = 30.0
WARM_UP = 300.0
"""Seconds, or a third of a shorter run."""

MOST_GROWTH = 1 << 20
LONG_ENOUGH = 600.0
"""A shorter run says nothing about memory."""

POISONOUS = 0.005
"""So many requests are. Each costs its model a load."""

_QUIET = 1.0
_STANDSTILL = 0.5
_REST_PATIENCE = 120.0
"""A model that died often may start again only after a minute."""


@frozen
class Reading:
    """What llamasup holds while nobody asks for anything."""

    seconds: float
    resident: int
    descriptors: int
    tasks: int

    def __str__(self) -> str:
        return (
            f"after {self.seconds:.0f} s: {self.resident / (1 << 20):.2f} MiB resident,"
            f" {self.descriptors} descriptors, {self.tasks} tasks"
        )


async def mixed(stage: Stage, minutes: float) -> None:
    """So long, and see whether anything grew."""
    folder = stage.folder / "mixed"
    tasks_file = folder / "tasks"
    inside = (sys.executable, "-m", "tests.chaos.inside", str(tasks_file))
    readings: list[Reading] = []
    async with weather(stage) as sky, AsyncExitStack() as stack:
        settings = stage.serving(MODELS) | sky.state_folder("mixed")
        subject = Subject(folder, settings, sky.exposed(inside), has_scribe=True)
        await stack.enter_async_context(started(subject))
        began = time.monotonic()
        while (passed := time.monotonic() - began) < minutes * 60:
            chance = stage.chance("mixed", len(readings))
            await _round(stage, sky, subject, min(ROUND, minutes * 60 - passed), chance)
            await _rest(stage, subject)
            readings.append(await _reading(subject, time.monotonic() - began))
            print(f"  {readings[-1]}", flush=True)
        status = await subject.stop()
        stage.report.require(status == 0, f"a mixed life: exit status {status}")
        stage.report.orphaned(await subject.orphans(), "a mixed life")
    stage.report.restarts += len(subject.readies()) - len(MODELS)
    _judge(stage, readings, minutes * 60)


async def _round(
    stage: Stage, sky: Weather, subject: Subject, seconds: float, chance: Random
) -> None:
    end = trio.current_time() + seconds
    async with trio.open_nursery() as nursery, _raging(sky, stage, subject, chance):
        for _ in range(CLIENTS):
            nursery.start_soon(_client, stage, subject, end, Random(chance.getrandbits(64)))
        await trio.sleep(seconds * chance.uniform(0.1, 0.5))
        if pid := subject.children().get(chance.choice(MODELS)):
            number = chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
            os.kill(pid, number)
            stage.report.faults[f"{number.name} by chance"] += 1
        await trio.sleep(seconds * 0.2)
        if pid := subject.children().get(chance.choice(MODELS)):
            os.kill(pid, signal.SIGSTOP)
            await trio.sleep(_STANDSTILL)
            with suppress(ProcessLookupError):  # it hung already, and was found out
                os.kill(pid, signal.SIGCONT)
            stage.report.faults["a moment's standstill"] += 1


@asynccontextmanager
async def _raging(
    sky: Weather, stage: Stage, subject: Subject, chance: Random
) -> AsyncIterator[None]:
    """Troubles of the machine until the end of the block."""
    async with trio.open_nursery() as outside:
        outside.start_soon(sky.rage, stage, subject, Random(chance.getrandbits(64)))
        yield
        outside.cancel_scope.cancel()


async def _client(stage: Stage, subject: Subject, end: float, chance: Random) -> None:
    while trio.current_time() < end:
        if chance.random() < POISONOUS:
            poison = await subject.ask(chance.choice(MODELS), POISON, chance.randint(1, 3))
            stage.report.count(poison, "mixed load, poison")
            stage.report.faults["a poisonous request"] += 1
        kind = chance.choice(list(KINDS.values()))
        tokens = chance.randint(1, LONGEST_CHAIN - 100)
        request = Request(subject.address, chance.choice(MODELS), kind, tokens)
        outcome = await request.run(chance.choice([None] * 6 + [chance.randint(1, tokens)]))
        stage.report.count(outcome, f"mixed load, {kind.path}")


async def _rest(stage: Stage, subject: Subject) -> None:
    """Every model is loaded, and nobody asks any more."""
    for model in MODELS:
        outcome = None
        with trio.move_on_after(_REST_PATIENCE):
            while outcome is None or outcome.verdict is Verdict.ERROR:
                outcome = await subject.ask(model, KINDS["chat"], 20)
                stage.report.count(outcome, "at rest")
        well = outcome is not None and outcome.verdict is Verdict.RIGHT
        stage.report.require(well, f"{model} did not come back: {outcome}")


async def _reading(subject: Subject, seconds: float) -> Reading:
    """The least that it holds in a while: a health check comes and goes."""
    process = psutil.Process(subject.pid)
    seen: list[tuple[int, int]] = []
    with trio.move_on_after(_QUIET):
        while True:
            seen.append((process.num_fds(), await _tasks(subject)))
            await trio.sleep(_QUIET / 20)
    descriptors, tasks = map(min, zip(*seen, strict=True))
    return Reading(seconds, process.memory_info().rss, descriptors, tasks)


async def _tasks(subject: Subject) -> int:
    told = subject.folder / "tasks"
    told.unlink(missing_ok=True)
    os.kill(subject.pid, signal.SIGUSR1)
    await eventually(told.exists)
    return int(told.read_text())


def _judge(stage: Stage, readings: Sequence[Reading], seconds: float) -> None:
    warm = min(WARM_UP, seconds / 3)
    judged = [reading for reading in readings if reading.seconds >= warm]
    first, last = judged[:3], judged[-3:]
    for name, most in (("resident", MOST_GROWTH), ("descriptors", 0), ("tasks", 0)):
        before, after = (median(getattr(r, name) for r in some) for some in (first, last))
        grew = f"{name} grew by {after - before:.0f} after {warm:.0f} s, from {before:.0f}"
        stage.report.note(grew)
        if name != "resident" or seconds >= LONG_ENOUGH:
            stage.report.require(after - before <= most, grew)

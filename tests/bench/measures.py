"""The measurements, one function each: they alternate over the ways, so that noise hits all alike.

A way that fails in one round is reported and left out from then on; the others go on.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.bench import clients, meters
from tests.bench.clients import StreamPlan, StreamTally, Window
from tests.bench.placing import neighbours_apart
from tests.bench.proxies import Llamasup, Unavailable, Way
from tests.bench.report import Figure, Target

CLIENT_PROCESSES = 2
HEAD_START = 0.15
"""Seconds between planning a round and its begin, in which the client processes get going."""

BREAKAGES = (OSError, clients.BadAnswer, psutil.Error, Unavailable)
"""What a broken way raises: it costs that way its figures, not the run."""


@dataclass(frozen=True)
class Pace:
    """How long and how often to measure."""

    rounds: int
    thousand_rounds: int
    cold_rounds: int
    swap_rounds: int
    listening_rounds: int
    decision_rounds: int
    decision_requests: int
    latency_seconds: float
    busy_seconds: float
    chunk_seconds: float
    thousand_opening: float
    thousand_seconds: float
    idle_seconds: float


FULL = Pace(5, 3, 9, 9, 5, 3, 10_000, 1.0, 2.0, 3.0, 1.5, 3.0, 5.0)
QUICK = Pace(3, 1, 3, 3, 3, 1, 1_000, 0.3, 0.3, 0.4, 0.6, 0.8, 1.0)


@dataclass
class Bench:
    """What the measurements share: the ways, the client processes, and what went wrong."""

    ways: list[Way]
    llamasup: Llamasup
    crowd: Executor
    pace: Pace
    problems: list[str] = field(default_factory=list)

    def rounds(self, count: int) -> Iterator[Way]:
        """Each way in turn, another one first in each round."""
        for number in range(count):
            shift = number % max(1, len(self.ways))
            yield from self.ways[shift:] + self.ways[:shift]

    @contextlib.contextmanager
    def excusing(self, way: str) -> Iterator[None]:
        """Takes a broken way out of the bench instead of ending it."""
        try:
            yield
        except BREAKAGES as error:
            self.report(f"{way}: {str(error) or type(error).__name__}")
            self.ways = [other for other in self.ways if other.name != way]

    def report(self, problem: str) -> None:
        """Says it loudly, at once and at the end."""
        if problem not in self.problems:
            self.problems.append(problem)
            print(f"PROBLEM: {problem}\n", file=sys.stderr)

    @contextlib.contextmanager
    def fresh_llamasup(self, llamasup: Llamasup | None = None) -> Iterator[Way]:
        """One that has just started, in a folder of its own."""
        llamasup = llamasup or self.llamasup
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
            llamasup.serving(Path(folder)) as way,
        ):
            yield way

    def alone(self, way: Way, seconds: float) -> array[int]:
        """Nanoseconds that each request took, with one connection asking."""
        ours = (child.pid for child in multiprocessing.active_children())
        theirs = (child.pid for pid in way.pids for child in psutil.Process(pid).children())
        stations = [ours, way.pids, way.engine_pids or theirs]
        with neighbours_apart([pids for pids in map(tuple, stations) if pids]):
            return self.crowd.submit(clients.one_client, way.address, seconds).result()

    def busy(self, way: Way, connections: int, seconds: float) -> tuple[int, float]:
        """Answers, and CPU seconds of the proxy for them, with all connections always asking."""
        begin = time.monotonic() + 2 * HEAD_START
        window = Window(begin, begin + seconds)
        each = connections // CLIENT_PROCESSES
        tallies = [
            self.crowd.submit(clients.busy_clients, way.address, each, window)
            for _ in range(CLIENT_PROCESSES)
        ]
        cpu = meters.cpu_seconds_in(window, way.pids)
        return sum(tally.result() for tally in tallies), cpu

    def streaming(self, way: Way, plan: StreamPlan) -> tuple[list[StreamTally], float]:
        """What the clients saw of the plan's streams, and CPU seconds of the proxy for it."""
        tallies = [
            self.crowd.submit(clients.streaming_clients, way.address, plan, part, CLIENT_PROCESSES)
            for part in range(CLIENT_PROCESSES)
        ]
        cpu = meters.cpu_seconds_in(plan.window, way.pids)
        return [tally.result() for tally in tallies], cpu


def latency(bench: Bench) -> list[Figure]:
    """One client on one kept-alive connection, each hop between the same two CPUs."""
    p50 = Figure("latency p50, 1 client", "ms")
    p99 = Figure("latency p99, 1 client", "ms")
    for way in bench.rounds(bench.pace.rounds):
        with bench.excusing(way.name):
            durations = bench.alone(way, bench.pace.latency_seconds)
            p50.add(way.name, percentile(durations, 50) / 1e6)
            p99.add(way.name, percentile(durations, 99) / 1e6)
    return [p50, p99, p50.beyond_direct("added p50, 1 client", Target("ratio", 3.5))]


def cpu(bench: Bench) -> list[Figure]:
    """Sixteen clients that always ask: how many answers, at what price."""
    per_second = Figure("requests/s, 16 clients", "1/s")
    per_request = Figure("CPU per request, 16 clients", "us", Target("ratio", 16))
    for way in bench.rounds(bench.pace.rounds):
        with bench.excusing(way.name):
            answers, used = bench.busy(way, 16, bench.pace.busy_seconds)
            _require(answers, "answered nothing")
            per_second.add(way.name, answers / bench.pace.busy_seconds)
            if way.pids:
                per_request.add(way.name, used / answers * 1e6)
    return [per_second, per_request]


def chunks(bench: Bench) -> list[Figure]:
    """32 streams at 200 chunks a second each."""
    per_chunk = Figure("CPU per chunk, 32 x 200/s", "us", Target("ratio", 3.5))
    for way in bench.rounds(bench.pace.rounds):
        with bench.excusing(way.name):
            start = time.monotonic() + HEAD_START
            plan = StreamPlan(32, 200, bench.pace.chunk_seconds, start, opening=0.2)
            tallies, used = bench.streaming(way, plan)
            counted = sum(len(tally.delays) for tally in tallies)
            _require(counted, "streamed nothing")
            if way.pids:
                per_chunk.add(way.name, used / counted * 1e6)
    return [per_chunk]


def thousand(bench: Bench) -> list[Figure]:
    """A thousand streams at 20 chunks a second each: nothing lost, and how late it comes."""
    lost = Figure("chunks lost, 1000 x 20/s", "", Target("value", 0))
    p50 = Figure("chunk delay p50, 1000 x 20/s", "ms")
    p99 = Figure("chunk delay p99, 1000 x 20/s", "ms")
    share = Figure("CPU share, 1000 x 20/s", "%")
    for way in bench.rounds(bench.pace.thousand_rounds):
        with bench.excusing(way.name):
            start = time.monotonic() + HEAD_START
            opening = bench.pace.thousand_opening
            plan = StreamPlan(1000, 20, bench.pace.thousand_seconds, start, opening)
            tallies, used = bench.streaming(way, plan)
            delays = [delay for tally in tallies for delay in tally.delays]
            _require(len(delays), "streamed nothing")
            lost.add(way.name, sum(tally.lost for tally in tallies))
            if any(tally.lost for tally in tallies):
                bench.report(f"{way.name}: lost chunks")
            p50.add(way.name, percentile(delays, 50) / 1e6)
            p99.add(way.name, percentile(delays, 99) / 1e6)
            if way.pids:
                share.add(way.name, used / bench.pace.thousand_seconds * 100)
    added = p99.beyond_direct("added delay p99, 1000 x 20/s", Target("value", 25))
    return [lost, p50, p99, added, share]


def idle(bench: Bench) -> list[Figure]:
    """A proxy that nobody asks, no model loaded; and how much it keeps after work."""
    before = Figure("resident, idle", "MB", Target("value", 45))
    wakeups = Figure("wakeups, idle", "1/s")
    after = Figure("resident, after 16 clients", "MB")

    def look_at(way: Way) -> None:
        before.add(way.name, meters.resident_megabytes(way.pids))
        wakeups.add(way.name, meters.wakeups_per_second(way.pids, bench.pace.idle_seconds))
        answers, _ = bench.busy(way, 16, bench.pace.busy_seconds)
        _require(answers, "answered nothing")
        after.add(way.name, meters.resident_megabytes(way.pids))

    for way in bench.ways:
        if way.name == "nginx":
            with bench.excusing(way.name):
                look_at(way)
    with bench.excusing("llamasup"), bench.fresh_llamasup() as way:
        meters.wait_until_quiet(way.pids[0])
        look_at(way)
    return [before, wakeups, after]


def listening(bench: Bench) -> list[Figure]:
    """From spawning `llamasup serve` to the first connection."""
    figure = Figure("serve to listening", "s", Target("value", 0.5))
    with bench.excusing("llamasup"):
        for _ in range(bench.pace.listening_rounds):
            with bench.fresh_llamasup() as way:
                figure.add("llamasup", way.seconds_to_listen)
    return [figure]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    _require(len(values), "nothing was measured")
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def _require(count: int, otherwise: str) -> None:
    if not count:
        raise Unavailable(otherwise)


Measure = Callable[[Bench], list[Figure]]

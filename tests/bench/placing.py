"""Where processes run while one request at a time is measured, so that every hop costs the same.

Left alone, the scheduler puts two that talk in turns now on one CPU, now on two, and a hop within
a CPU costs a third of a hop between two: the difference is more than a proxy. So neighbours on the
way never share a CPU. And an idle CPU takes its time to wake, more the longer it slept: so a
spinner on each, which runs only when nobody else wants to, lets none fall asleep.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# It yields often, since even the idle policy grants it a slice now and then. Where the kernel
# groups processes by session, the policy counts only within its group: so it has a group of its
# own, and that is the nicest. It ends by itself after a minute, should nobody be left to end it.
SPIN = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.setsid()
if os.path.exists("/proc/self/autogroup"):
    with open("/proc/self/autogroup", "w") as group:
        group.write("19")
end = time.monotonic() + 60
while time.monotonic() < end:
    sum(range(1000))
    os.sched_yield()
"""


@contextlib.contextmanager
def neighbours_apart(way: Sequence[Sequence[int]]) -> Iterator[None]:
    """Two CPUs by turns for the stations of a way, each given by the pids that live there."""
    every_cpu = os.sched_getaffinity(0)
    cpus = sorted(every_cpu)[:2]
    for pids, cpu in zip(way, itertools.cycle(cpus), strict=False):
        _place(pids, {cpu})
    spinners = [subprocess.Popen([sys.executable, "-I", "-S", "-c", SPIN, str(c)]) for c in cpus]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
        for pids in way:
            _place(pids, every_cpu)


def _place(pids: Iterable[int], cpus: set[int]) -> None:
    """Moves every thread; one that has ended meanwhile needs no place."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cpus)

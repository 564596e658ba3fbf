"""What a process costs: its CPU time, resident memory and wakeups, read from outside."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.bench.clients import Window

Pids = Iterable[int]


def cpu_seconds(pids: Pids) -> float:
    """CPU time of the processes so far, ended threads included, their children not.

    Read from the processes' CPU clocks: `/proc/PID/stat` counts in steps of 10 ms, which is as
    much as nginx uses in a short round.
    """
    return sum(time.clock_gettime(_cpu_clock_of(pid)) for pid in pids)


def cpu_seconds_in(window: Window, pids: Pids) -> float:
    """CPU time of the processes in a window that is still to come."""
    _sleep_until(window.begin)
    before = cpu_seconds(pids)
    _sleep_until(window.end)
    return cpu_seconds(pids) - before


def resident_megabytes(pids: Pids) -> float:
    return sum(float(psutil.Process(pid).memory_info().rss) for pid in pids) / 1e6


def wakeups_per_second(pids: Pids, seconds: float) -> float:
    """How often threads of the processes woke up by themselves or were woken."""
    before = _voluntary_switches(pids)
    time.sleep(seconds)
    return (_voluntary_switches(pids) - before) / seconds


def wait_until_quiet(pid: int, patience: float = 10) -> None:
    """Waits until a process has done what it does after its start."""
    deadline = time.monotonic() + patience
    used, now_used = -1.0, cpu_seconds([pid])
    while now_used - used > 0.002 or psutil.Process(pid).children():
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
        used, now_used = now_used, cpu_seconds([pid])


def _cpu_clock_of(pid: int) -> int:
    """The clock's id as clock_getcpuclockid(3) makes it, which Python does not offer."""
    every_thread, scheduled_time = 0, 2
    return (~pid << 3) | every_thread | scheduled_time


def _voluntary_switches(pids: Pids) -> int:
    statuses = (status for pid in pids for status in Path(f"/proc/{pid}/task").glob("*/status"))
    lines = (line for status in statuses for line in status.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))

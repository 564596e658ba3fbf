"""What the host says about memory: how much is free, and whether the kernel killed for it."""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path

from llamasup.memory.machine import (
    MEMINFO,
    OWN_CGROUPS,
    cgroup_folders,
    limit_files,
    parse_meminfo,
    read_files,
)

_COUNTERS = ("memory.events", "memory.oom_control")
_JUST_NOW = 10.0
_VMSTAT = Path("/proc/vmstat")
_FORGET_THE_PEAK = "5"
_KB = 1024
_MOST_RELATIVES = 32


def free_memory() -> int:
    """Bytes that can be had now: the machine's, or what is left of the container's limit.

    0 where the host does not say so in files; a `Gauge` also asks those that have to be run.
    """
    files = read_files((MEMINFO, OWN_CGROUPS))
    limits = read_files(limit_files(files.get(OWN_CGROUPS, "")))
    return sum(device.free for device in parse_meminfo(files.get(MEMINFO, ""), limits))


class OomKills:
    """How often the kernel has killed for memory, looked at now and then.

    Without privileges nobody can ask it whom: the log that names the process is root's, and a
    cgroup of its own for each child is not ours to make. What can be known is that it killed one
    of us just before a child was found killed.
    """

    def __init__(self) -> None:
        self._count: int | None = None
        self._grew_at = -math.inf

    def look(self, now: float) -> None:
        """Take note of what has happened since the last look."""
        count = oom_kills()
        if self._count is not None and count > self._count:
            self._grew_at = now
        self._count = count

    def just_now(self, now: float) -> bool:
        """Has it killed within the last seconds? What dies with much memory takes some to go."""
        self.look(now)
        return now - self._grew_at <= _JUST_NOW


def oom_kills() -> int:
    """How often the kernel has killed a process of our cgroup for memory; where that is not said,
    how often on this machine."""
    own_cgroups = _text(Path(OWN_CGROUPS))
    for counter in _kill_counters(own_cgroups):
        if (count := _number_said(Path(counter), "oom_kill ")) is not None:
            return count
    return _number_after(_VMSTAT, "oom_kill ")


@lru_cache(maxsize=1)
def _kill_counters(own_cgroups: str) -> tuple[str, ...]:
    """The files that count them (v2 and v1), the nearest first. In a container the path may be
    the host's, and only the top of it is there, which then is ours."""
    folders = cgroup_folders(own_cgroups)
    return tuple(f"{folder}/{name}" for folder in folders for name in _COUNTERS)


def family(pid: int) -> list[int]:
    """This process and all that descend from it: an engine may be the child of a script."""
    found = [pid]
    for parent in islice(found, _MOST_RELATIVES):
        threads = f"/proc/{parent}/task"
        with suppress(OSError):  # gone meanwhile
            # Of all children at once on the loop: a glob takes more than twice as long.
            for thread in os.listdir(threads):
                found += map(int, _text(f"{threads}/{thread}/children").split())
    return found


def anonymous_memory(pid: int) -> int:
    """Bytes that only this process and its descendants hold, in memory or swapped out; 0 if it is
    gone."""
    return sum(map(_anonymous, family(pid)))


def _anonymous(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    return (_number_after(status, "RssAnon:") + _number_after(status, "VmSwap:")) * _KB


def most_resident(pid: int) -> int:
    """The most bytes that this process and its descendants have held at once, pages of files among
    them: since its start, or since `forget_peak`. 0 if it is gone, or the host does not say."""
    return sum(map(_most_resident, family(pid)))


def _most_resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    held = sum(_number_after(status, f"{kind}:") for kind in ("RssAnon", "RssShmem", "RssFile"))
    swapped = _number_after(status, "VmSwap:")
    return max(held + swapped, _number_after(status, "VmHWM:")) * _KB


def forget_peak(pid: int) -> None:
    """Let `most_resident` begin anew, where the kernel knows how."""
    for relative in family(pid):
        with suppress(OSError):
            Path(f"/proc/{relative}/clear_refs").write_text(_FORGET_THE_PEAK)


def _number_after(file: Path, label: str) -> int:
    return _number_said(file, label) or 0


def _number_said(file: Path, label: str) -> int | None:
    found = re.search(rf"^{re.escape(label)}\s*(\d+)", _text(file), re.MULTILINE)
    return int(found[1]) if found else None


def _text(file: Path | str) -> str:
    try:
        # The kernel cuts a process's name at 15 bytes, in the middle of a letter too.
        with open(file, errors="replace") as opened:
            return opened.read()
    except OSError:
        return ""

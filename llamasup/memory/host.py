"""What the host says about processes: what they hold, and whether the kernel killed for memory."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path

from llamasup.memory.readings import (
    OWN_CGROUPS,
    anonymous_in,
    kill_counters,
    kills_in,
    most_resident_in,
)

_JUST_NOW = 10.0
_VMSTAT = Path("/proc/vmstat")
_FORGET_THE_PEAK = "5"
_MOST_RELATIVES = 32


class OomKills:
    """Counts how often the kernel has killed for memory, at each look.

    Without privileges we cannot find out which process was killed: only root may read the log that
    names it, and we may not make a cgroup for each child. But we can find out that a process of
    ours was killed just before a child was found dead.
    """

    def __init__(self) -> None:
        self._count: int | None = None
        self._grew_at = -math.inf

    def look(self, now: float) -> None:
        """Note the kills since the last look."""
        count = oom_kills()
        if self._count is not None and count > self._count:
            self._grew_at = now
        self._count = count

    def just_now(self, now: float) -> bool:
        """Has the kernel killed within the last seconds? A large process takes time to end."""
        self.look(now)
        return now - self._grew_at <= _JUST_NOW


def oom_kills() -> int:
    """How often the kernel has killed a process of our cgroup for memory. If the system does not
    say, how often it has done so on this machine."""
    for counter in kill_counters(_text(OWN_CGROUPS)):
        if (count := kills_in(_text(counter))) is not None:
            return count
    return kills_in(_text(_VMSTAT)) or 0


def family(pid: int) -> list[int]:
    """This process and all its descendants: an engine may be the child of a script."""
    found = [pid]
    for parent in islice(found, _MOST_RELATIVES):
        threads = f"/proc/{parent}/task"
        with suppress(OSError):  # gone meanwhile
            # It runs on the loop, for all children at once: a glob takes more than twice as long.
            for thread in os.listdir(threads):
                found += map(int, _text(f"{threads}/{thread}/children").split())
    return found


def anonymous_memory(pid: int) -> int:
    """Bytes that this process and its descendants share with no other process, in memory or swapped
    out; 0 if it is gone."""
    return sum(anonymous_in(_status(relative)) for relative in family(pid))


def most_resident(pid: int) -> int:
    """The most bytes that this process and its descendants have held at once, with pages of files,
    since its start or since `forget_peak`. 0 if it is gone, or if the host does not say."""
    return sum(most_resident_in(_status(relative)) for relative in family(pid))


def forget_peak(pid: int) -> None:
    """Let `most_resident` begin anew, if the kernel can do that."""
    for relative in family(pid):
        with suppress(OSError):
            Path(f"/proc/{relative}/clear_refs").write_text(_FORGET_THE_PEAK)


def _status(pid: int) -> str:
    return _text(f"/proc/{pid}/status")


def _text(file: Path | str) -> str:
    try:
        # The kernel cuts a process's name at 15 bytes, even in the middle of a letter.
        with open(file, errors="replace") as opened:
            return opened.read()
    except OSError:
        return ""

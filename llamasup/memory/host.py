"""What the host says about memory: how much is free, and whether the kernel killed for it."""

from __future__ import annotations

import re
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_KB = 1024


def free_memory() -> int:
    """Bytes that can be had now: the machine's, or what is left of the container's limit.

    0 where the host does not say.
    """
    available = _number_after(Path("/proc/meminfo"), "MemAvailable:") * _KB
    limit = _number(_own_cgroup() / "memory.max")
    if limit:
        left = limit - _number(_own_cgroup() / "memory.current")
        return min(available, max(left, 0))
    return available


def oom_kills() -> int:
    """How often the kernel has killed a process for memory, in our cgroup or on this machine.

    A number that has grown while a child was killed tells who did it.
    """
    return _number_after(_own_cgroup() / "memory.events", "oom_kill ") + _number_after(
        Path("/proc/vmstat"), "oom_kill "
    )


def anonymous_memory(pid: int) -> int:
    """Bytes that only this process holds, in memory or swapped out; 0 if it is gone."""
    status = Path(f"/proc/{pid}/status")
    return (_number_after(status, "RssAnon:") + _number_after(status, "VmSwap:")) * _KB


def _own_cgroup() -> Path:
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::/"):
            return _CGROUPS / line.removeprefix("0::/")
    return _CGROUPS


def _number_after(file: Path, label: str) -> int:
    found = re.search(rf"^{re.escape(label)}\s*(\d+)", _text(file), re.MULTILINE)
    return int(found[1]) if found else 0


def _number(file: Path) -> int:
    text = _text(file).strip()
    return int(text) if text.isdigit() else 0


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""

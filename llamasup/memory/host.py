"""What the host says about memory: how much is free, and whether the kernel killed for it."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice
from pathlib import Path

from llamasup.memory.hardware import MEMINFO, OWN_CGROUPS, limit_files, parse_meminfo, read_files

_CGROUPS = Path("/sys/fs/cgroup")
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


def oom_kills() -> int:
    """How often the kernel has killed a process for memory, in our cgroup or on this machine.

    A number that has grown while a child was killed tells who did it.
    """
    return _number_after(_own_cgroup() / "memory.events", "oom_kill ") + _number_after(
        Path("/proc/vmstat"), "oom_kill "
    )


def family(pid: int) -> list[int]:
    """This process and all that descend from it: an engine may be the child of a script."""
    found = [pid]
    for parent in islice(found, _MOST_RELATIVES):
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += (int(child) for child in _text(children).split())
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


def _own_cgroup() -> Path:
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::/"):
            return _CGROUPS / line.removeprefix("0::/")
    return _CGROUPS


def _number_after(file: Path, label: str) -> int:
    found = re.search(rf"^{re.escape(label)}\s*(\d+)", _text(file), re.MULTILINE)
    return int(found[1]) if found else 0


def _text(file: Path) -> str:
    try:
        # The kernel cuts a process's name at 15 bytes, in the middle of a letter too.
        return file.read_text(errors="replace")
    except OSError:
        return ""

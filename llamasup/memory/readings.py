"""Reads what a host's files and tools say about memory. Pure.

A reader accepts whatever the tool prints, even complaints, and leaves out what it cannot read.
`memory.machine` asks for these outputs; `memory.cards` reads what vendors' tools say about GPUs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

from attrs import frozen

from llamasup.memory.cards import number

HOST: Final = "host"
"""The name of the host's own memory."""

MEMINFO: Final = "/proc/meminfo"
OWN_CGROUPS: Final = "/proc/self/cgroup"

_MIB: Final = 1 << 20
_KIB: Final = 1 << 10
_LIMITS: Final = (
    *("memory.max", "memory.current", "memory.stat"),
    *("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_KILL_COUNTERS: Final = ("memory.events", "memory.oom_control")


class Kind(Enum):
    """What kind of device has the memory."""

    HOST = "host"
    NVIDIA = "nvidia"
    AMD = "amd"
    APPLE = "apple"
    OTHER = "other"


@frozen
class Device:
    """A device on which models can be placed, with its memory in bytes."""

    name: str
    """The engine's name for the device."""

    kind: Kind
    total: int
    free: int
    label: str = ""
    """The device's name for people."""

    unified: bool = False
    """Does the device use the host's memory?"""

    place: str = ""
    """What identifies the device if its name does not: an RPC server's address."""

    common: str = ""
    """The budget of the same device under the name that the common engine gives it, if a model's
    own engine listed it."""

    @property
    def identity(self) -> str:
        """What is the same for this device in all lists of devices."""
        return self.place or self.common or self.name

    @property
    def budget(self) -> str:
        """The name of the budget that pays for what is placed on this device."""
        return HOST if self.unified else self.identity


@lru_cache(maxsize=1)  # finding the paths takes longer than reading the files
def limit_files(own_cgroups: str) -> tuple[str, ...]:
    """From /proc/self/cgroup: the files that may limit our memory, whether they exist or not."""
    return tuple(f"{folder}/{name}" for folder in cgroup_folders(own_cgroups) for name in _LIMITS)


def cgroup_folders(text: str) -> list[str]:
    """From /proc/self/cgroup: the folders that may hold limits of our memory, on every level.

    In a container the path is often the host's, and only its top level can be read.
    """
    folders = []
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = PurePosixPath("/sys/fs/cgroup", controllers)
            own = top / path.lstrip("/")
            folders += [str(f) for f in (own, *own.parents) if f.is_relative_to(top)]
    return folders


def parse_meminfo(text: str, limits: Mapping[str, str]) -> list[Device]:
    """The host's memory from /proc/meminfo, or what is left of the tightest limit on us.

    `limits` are the contents of cgroup files (v1 or v2) by path. Cached files count as free, as
    they do in MemAvailable: the kernel drops them before it refuses memory.
    """
    sizes = {
        name: int(size) * _KIB for name, size in re.findall(r"(?m)^(Mem\w+):\s+(\d+) kB", text)
    }
    if "MemTotal" not in sizes:
        return []
    total, free = sizes["MemTotal"], sizes.get("MemAvailable", sizes.get("MemFree", 0))
    for folder in {str(PurePosixPath(path).parent) for path in limits}:
        limit = number(limits, f"{folder}/memory.max", f"{folder}/memory.limit_in_bytes")
        if limit is not None:
            used = number(limits, f"{folder}/memory.current", f"{folder}/memory.usage_in_bytes")
            cached = _file_cache(limits.get(f"{folder}/memory.stat", ""))
            total = min(total, limit)
            free = min(free, limit - (used or 0) + cached)
    return [Device(HOST, Kind.HOST, total, max(free, 0))]


def _file_cache(stat: str) -> int:
    # v1 has all numbers twice: the later ones, `total_…`, include the cgroups below.
    pages = dict(re.findall(r"(?m)^(?:total_)?(active_file|inactive_file) (\d+)", stat))
    return sum(map(int, pages.values()))


def parse_sysctl(text: str) -> dict[str, int]:
    """The numbers that `sysctl name…` prints. Names that a system does not know are left out."""
    return {name: int(value) for name, value in re.findall(r"(?m)^([\w.]+): (\d+)$", text)}


def parse_vm_stat(text: str, sysctl: Mapping[str, int]) -> list[Device]:
    """The memory of a Mac. On Apple silicon it is shared, and GPUs may use a part of it.

    macOS decides how large that part is, unless the operator did (`iogpu.wired_limit_mb`): three
    quarters, or two thirds if there are 36 GiB or less. No model can count on more.
    """
    total = sysctl["hw.memsize"]
    kind = Kind.HOST
    if sysctl.get("hw.optional.arm64"):
        kind = Kind.APPLE
        by_default = total * 3 // 4 if total > 36 << 30 else total * 2 // 3
        total = sysctl.get("iogpu.wired_limit_mb", 0) * _MIB or by_default
    size = re.search(r"page size of (\d+) bytes", text)
    pages = re.findall(r"(?m)^Pages (?:free|inactive|speculative): +(\d+)\.", text)
    free = sum(map(int, pages)) * int(size[1]) if size else 0
    return [Device(HOST, kind, total, min(free, total))]


# Processes


@lru_cache(maxsize=1)
def kill_counters(own_cgroups: str) -> tuple[str, ...]:
    """From /proc/self/cgroup: the files that count how often the kernel killed for memory (v2 and
    v1), the nearest first. In a container the path may be the host's; then only its top level
    exists, and that is ours."""
    folders = cgroup_folders(own_cgroups)
    return tuple(f"{folder}/{name}" for folder in folders for name in _KILL_COUNTERS)


def kills_in(counter: str) -> int | None:
    """From such a file, or from /proc/vmstat: how often the kernel killed; None if it is not
    said."""
    return _number_after(counter, "oom_kill ")


def anonymous_in(status: str) -> int:
    """From /proc/…/status: bytes that the process shares with no other, in memory or swapped
    out."""
    return _kibibytes(status, "RssAnon", "VmSwap")


def most_resident_in(status: str) -> int:
    """From /proc/…/status: the most bytes that this process has held at once, files included."""
    held = _kibibytes(status, "RssAnon", "RssShmem", "RssFile", "VmSwap")
    return max(held, _kibibytes(status, "VmHWM"))


def _kibibytes(status: str, *labels: str) -> int:
    return sum(_number_after(status, f"{label}:") or 0 for label in labels) * _KIB


def _number_after(text: str, label: str) -> int | None:
    found = re.search(rf"^{re.escape(label)}\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None

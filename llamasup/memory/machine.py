"""What memory a machine says that it has: the host's, and that of cards by their vendors' tools.

Which of it is a device that models can be placed on, the engine knows (`memory.listing`).

The readers are pure, and take whatever the tools print, complaints included: what they cannot read
is not there. Who asks does so through a `Machine`, so that recordings can stand in for a real one.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from glob import glob
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, Final, Protocol

import trio
from attrs import frozen

from llamasup import threads
from llamasup.memory.cards import (
    Card,
    number,
    parse_amd_sysfs,
    parse_nvidia_smi,
    parse_rocm_smi,
    read_nvml,
)
from llamasup.processes import asking

HOST: Final = "host"
"""The name of the host's own memory."""

_MIB: Final = 1 << 20
_KIB: Final = 1 << 10

_NVIDIA_SMI: Final = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)
_ROCM_SMI: Final = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")
_SYSCTL: Final = ("sysctl", "hw.memsize", "hw.optional.arm64", "iogpu.wired_limit_mb")
_VM_STAT: Final = ("vm_stat",)
_LIBRARIES: Final = ("ldconfig", "-p")

MEMINFO: Final = "/proc/meminfo"
OWN_CGROUPS: Final = "/proc/self/cgroup"
_LIMITS: Final = (
    *("memory.max", "memory.current", "memory.stat"),
    *("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_AMD_SYSFS: Final = "/sys/class/drm/card*/device/mem_info_vram_*"


class Kind(Enum):
    """Whose memory it is."""

    HOST = "host"
    NVIDIA = "nvidia"
    AMD = "amd"
    APPLE = "apple"
    OTHER = "other"


@frozen
class Device:
    """Memory in bytes that models can be placed in."""

    name: str
    """The engine's name for it."""

    kind: Kind
    total: int
    free: int
    label: str = ""
    """What people call it."""

    unified: bool = False
    """It has no memory of its own: what is placed here is in the host's."""

    place: str = ""
    """What tells it from others, where its name does not: an RPC server's address."""

    @property
    def budget(self) -> str:
        """The name of the budget from which is taken what is placed here."""
        return HOST if self.unified else self.place or self.name


class Machine(Protocol):
    """Whom to ask. Who is silent now, for his driver hangs, is taken at his last word.

    Cancelled, it leaves nothing behind but what cannot be ended.
    """

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """What the command prints, however it ends; nothing if it never ran to an end."""

    async def read(self, *patterns: str) -> Mapping[str, str]:
        """By path, the files that match and can be read."""

    async def nvml(self) -> list[Card]:
        """NVIDIA's GPUs as NVIDIA's library knows them; none where it is missing."""


async def cards(machine: Machine) -> list[Card]:
    """The GPUs that vendors' tools know of."""
    nvidia = await machine.nvml() or parse_nvidia_smi(await machine.run(*_NVIDIA_SMI))
    # The driver's own files first: rocm-smi reads the same, and starts a Python for it.
    amd = parse_amd_sysfs(await machine.read(_AMD_SYSFS))
    return nvidia + (amd or parse_rocm_smi(await machine.run(*_ROCM_SMI)))


async def has_vulkan(machine: Machine) -> bool:
    """Is there a Vulkan loader, so that a Vulkan engine may find something?"""
    return "libvulkan.so.1 " in await machine.run(*_LIBRARIES)


async def host(machine: Machine) -> list[Device]:
    """The host's memory; nothing where the system does not tell."""
    files = await machine.read(MEMINFO, OWN_CGROUPS)
    if MEMINFO in files:
        limits = await machine.read(*limit_files(files.get(OWN_CGROUPS, "")))
        return parse_meminfo(files[MEMINFO], limits)
    sysctl = parse_sysctl(await machine.run(*_SYSCTL))
    if "hw.memsize" in sysctl:
        return parse_vm_stat(await machine.run(*_VM_STAT), sysctl)
    return []


async def physical_memory(machine: Machine) -> int:
    """All that the host has, whatever the limits on us; 0 where it does not say so in a file."""
    files = await machine.read(MEMINFO)
    return sum(device.total for device in parse_meminfo(files.get(MEMINFO, ""), {}))


# The host


@lru_cache(maxsize=1)  # to find them out takes longer than to read them, and they stay the same
def limit_files(own_cgroups: str) -> tuple[str, ...]:
    """From /proc/self/cgroup: the files that may limit our memory, whether they exist or not."""
    return tuple(f"{folder}/{name}" for folder in cgroup_folders(own_cgroups) for name in _LIMITS)


def cgroup_folders(text: str) -> list[str]:
    """From /proc/self/cgroup: where limits of our memory may be found, on every level.

    In a container the path is often the host's, and only the top of it is there to be read.
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

    `limits` are files of cgroups (v1 or v2) by path. A cache of files counts as free, as it does
    in MemAvailable: the kernel gives it up before it refuses memory.
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
    """The memory of a Mac. On Apple silicon that is one for all, of which GPUs may have a part.

    macOS decides how much that is, unless the operator did (`iogpu.wired_limit_mb`): three
    quarters, and of 36 GiB or less two thirds. More cannot be promised to any model.
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


# This machine


class ThisMachine:
    """The machine that we run on."""

    def __init__(self, patience: float = 10.0) -> None:
        self._patience = patience
        """A tool answers within a second, or never if a GPU has fallen off the bus."""

        self._said: dict[object, str] = {}
        self._cards: list[Card] = []
        self._at_nvml = threads.Lane()

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """See Machine."""
        if shutil.which(command[0]) is None:
            return ""  # to find that out by starting it would take a hundred times as long
        question = command, environment and frozenset(environment.items())
        with trio.move_on_after(self._patience), suppress(OSError, asking.StillRunning):
            ended = await asking.run(command, environment)
            # llama-server lists its devices in one or the other, by version and mode.
            self._said[question] = (ended.stdout + ended.stderr).decode(errors="replace")
        return self._said.get(question, "")

    async def read(self, *patterns: str) -> Mapping[str, str]:
        """See Machine."""
        return await threads.run(read_files, patterns)

    async def nvml(self) -> list[Card]:
        """See Machine."""
        with suppress(TimeoutError):
            self._cards = await self._at_nvml.run(_ask_nvml, patience=self._patience)
        return self._cards


def read_files(patterns: Sequence[str]) -> dict[str, str]:
    """By path, the files that match and can be read."""
    files = {}
    for pattern in patterns:
        for path in glob(pattern) if "*" in pattern else (pattern,):
            with suppress(OSError), open(path, errors="replace") as file:
                files[path] = file.read()
    return files


def _ask_nvml() -> list[Card]:
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return []
    with suppress(nvml.NVMLError):
        nvml.nvmlInit()
        try:
            return read_nvml(nvml)
        finally:
            nvml.nvmlShutdown()
    return []

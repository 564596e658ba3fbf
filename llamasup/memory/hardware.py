"""What memory there is, device by device: the host's, and that of GPUs by their vendors' tools.

Each device is a budget of its own, under the name that the engine has for it (`CUDA0`, `ROCm1`).
A GPU that shares the host's memory has none of its own: what is placed there is the host's.

The readers are pure, and take whatever the tools print, complaints included: what they cannot read
is not there. `devices` asks through a `Machine`, so that recordings can stand in for a real one.
"""

from __future__ import annotations

import json
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
from attrs import evolve, frozen

from llamasup import programs, threads

HOST: Final = "host"
"""The name of the host's own memory."""

_MIB: Final = 1 << 20
_KIB: Final = 1 << 10

_NVIDIA_SMI: Final = (
    "nvidia-smi",
    "--query-gpu=index,name,memory.total,memory.free",
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
    kind: Kind
    total: int
    free: int
    label: str = ""
    """What people call it."""

    unified: bool = False
    """It has no memory of its own: these are the host's numbers."""

    @property
    def budget(self) -> str:
        """The name of the device whose memory is taken by what is placed here."""
        return HOST if self.unified else self.name


class Machine(Protocol):
    """Whom to ask. Who is silent now, for his driver hangs, is taken at his last word.

    Cancelled, it leaves nothing behind but what cannot be ended.
    """

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """What the command prints, however it ends; nothing if it never ran to an end."""

    async def read(self, *patterns: str) -> Mapping[str, str]:
        """By path, the files that match and can be read."""

    async def nvml(self) -> list[Device]:
        """NVIDIA's GPUs as NVIDIA's library knows them; none where it is missing."""


async def devices(machine: Machine) -> list[Device]:
    """The host's memory, where the system tells, and the GPUs."""
    return together(await host(machine), await gpus(machine))


def together(host: list[Device], gpus: list[Device]) -> list[Device]:
    """All of them; those that share the host's memory with its numbers."""
    return host + [_with_memory(gpu, host) for gpu in gpus]


async def gpus(machine: Machine) -> list[Device]:
    """The GPUs. Those that share the host's memory know no numbers of their own."""
    nvidia = await machine.nvml() or parse_nvidia_smi(await machine.run(*_NVIDIA_SMI))
    # The driver's own files first: rocm-smi reads the same, and starts a Python for it.
    amd = parse_amd_sysfs(await machine.read(_AMD_SYSFS))
    return nvidia + (amd or parse_rocm_smi(await machine.run(*_ROCM_SMI)))


async def engine_devices(
    machine: Machine, engine: Sequence[str], environment: Mapping[str, str] | None = None
) -> list[Device]:
    """The GPUs that a llama-server can use, by any backend. It takes as long as its drivers do."""
    answer = await machine.run(*engine, "--list-devices", environment=environment)
    return parse_list_devices(answer)


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


def _with_memory(gpu: Device, host: list[Device]) -> Device:
    if not gpu.unified:
        return gpu
    return evolve(gpu, total=sum(d.total for d in host), free=sum(d.free for d in host))


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
        limit = _number(limits, f"{folder}/memory.max", f"{folder}/memory.limit_in_bytes")
        if limit is not None:
            used = _number(limits, f"{folder}/memory.current", f"{folder}/memory.usage_in_bytes")
            cached = _file_cache(limits.get(f"{folder}/memory.stat", ""))
            total = min(total, limit)
            free = min(free, limit - (used or 0) + cached)
    return [Device(HOST, Kind.HOST, total, max(free, 0))]


def _file_cache(stat: str) -> int:
    # v1 has all numbers twice: the later ones, `total_…`, include the cgroups below.
    pages = dict(re.findall(r"(?m)^(?:total_)?(active_file|inactive_file) (\d+)", stat))
    return sum(map(int, pages.values()))


def _number(files: Mapping[str, str], *paths: str) -> int | None:
    texts = (files.get(path, "").strip() for path in paths)
    return next((int(text) for text in texts if text.isdecimal()), None)


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


# GPUs


def parse_nvidia_smi(text: str) -> list[Device]:
    """Of `--query-gpu=index,name,memory.total,memory.free --format=csv,noheader,nounits`.

    The index follows the PCI bus; CUDA's does so where CUDA_DEVICE_ORDER is PCI_BUS_ID.
    """
    rows = re.findall(r"(?m)^(\d+), (.+), (\d+|\[.+\]), (\d+|\[.+\])\r?$", text)
    return [
        _nvidia(int(index), label, _mib(total), _mib(free)) for index, label, total, free in rows
    ]


def read_nvml(nvml: Any) -> list[Device]:
    """From the module `pynvml`. A GPU that it cannot talk to is left out."""
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        with suppress(nvml.NVMLError):
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            label = nvml.nvmlDeviceGetName(gpu)
            try:
                memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
            except nvml.NVMLError_NotSupported:
                found.append(_nvidia(index, label, None, None))
            else:
                found.append(_nvidia(index, label, memory.total, memory.free))
    return found


def _nvidia(index: int, label: str, total: int | None, free: int | None) -> Device:
    """GPUs that share the host's memory (GB10) know no numbers of their own."""
    unified = total is None
    return Device(f"CUDA{index}", Kind.NVIDIA, total or 0, free or 0, label, unified)


def _mib(text: str) -> int | None:
    return int(text) * _MIB if text.isdecimal() else None


def parse_amd_sysfs(files: Mapping[str, str]) -> list[Device]:
    """From `mem_info_vram_total` and `mem_info_vram_used` in the folders of the cards."""
    cards = []
    for folder in sorted({str(PurePosixPath(path).parent) for path in files}, key=_in_order):
        total = _number(files, f"{folder}/mem_info_vram_total")
        used = _number(files, f"{folder}/mem_info_vram_used")
        if total is not None and used is not None:
            cards.append((total, used, ""))
    return _amd(cards)


def parse_rocm_smi(text: str) -> list[Device]:
    """Of `rocm-smi --showmeminfo vram --json`, which warnings may precede."""
    try:
        answer = json.loads(text[text.index("{") :])
    except ValueError:
        return []
    cards = []
    for _, card in sorted(answer.items(), key=lambda entry: _in_order(entry[0])):
        total = _number(card, "VRAM Total Memory (B)")
        used = _number(card, "VRAM Total Used Memory (B)")
        if total is not None and used is not None:
            cards.append((total, used, card.get("Card Series") or card.get("Card series") or ""))
    return _amd(cards)


def _amd(cards: list[tuple[int, int, str]]) -> list[Device]:
    return [
        Device(f"ROCm{index}", Kind.AMD, total, max(total - used, 0), label)
        for index, (total, used, label) in enumerate(cards)
    ]


def _in_order(name: str) -> list[int]:
    """card10 comes after card9."""
    return [int(number) for number in re.findall(r"\d+", name)]


_BACKENDS: Final = {"CUDA": Kind.NVIDIA, "ROCm": Kind.AMD, "Metal": Kind.APPLE, "MTL": Kind.APPLE}


def parse_list_devices(text: str) -> list[Device]:
    """Of `llama-server --list-devices`, whatever its backends are."""
    rows = re.findall(r"(?m)^  (\D+)(\d*): (.+) \((\d+) MiB, (\d+) MiB free\)$", text)
    return [
        Device(
            f"{backend}{index}",
            _BACKENDS.get(backend, Kind.OTHER),
            int(total) * _MIB,
            int(free) * _MIB,
            label,
        )
        for backend, index, label, total, free in rows
    ]


# This machine


class ThisMachine:
    """The machine that we run on."""

    def __init__(self, patience: float = 10.0) -> None:
        self._patience = patience
        """A tool answers within a second, or never if a GPU has fallen off the bus."""

        self._said: dict[tuple[str, ...], str] = {}
        self._gpus: list[Device] = []
        self._at_nvml = trio.CapacityLimiter(1)
        """A thread that hangs in the driver is never had back: one is enough to lose."""

        self._nvml_hangs = False

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """See Machine."""
        if shutil.which(command[0]) is None:
            return ""  # to find that out by starting it would take a hundred times as long
        with trio.move_on_after(self._patience), suppress(OSError, programs.StillRunning):
            ended = await programs.run(command, environment)
            self._said[command] = ended.stdout.decode(errors="replace")
        return self._said.get(command, "")

    async def read(self, *patterns: str) -> Mapping[str, str]:
        """See Machine."""
        return await threads.run(read_files, patterns)

    async def nvml(self) -> list[Device]:
        """See Machine."""
        if self._nvml_hangs and not self._at_nvml.available_tokens:
            return self._gpus
        with trio.move_on_after(self._patience) as patience:
            self._gpus = await threads.run(_ask_nvml, limiter=self._at_nvml)
        self._nvml_hangs = patience.cancelled_caught
        return self._gpus


def read_files(patterns: Sequence[str]) -> dict[str, str]:
    """By path, the files that match and can be read."""
    files = {}
    for pattern in patterns:
        for path in glob(pattern) if "*" in pattern else (pattern,):
            with suppress(OSError), open(path, errors="replace") as file:
                files[path] = file.read()
    return files


def _ask_nvml() -> list[Device]:
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

"""Asks a machine what memory it has: the host's, and that of GPUs by their vendors' tools.

`memory.readings` and `memory.cards` read the answers. The engine knows which GPUs are devices for
models (`memory.listing`). All questions go to a `Machine`, so that recordings can replace a real
one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import glob
from importlib import import_module
from typing import Any, Final, Protocol

import trio

from llamasup import threads
from llamasup.memory.cards import (
    Card,
    parse_amd_sysfs,
    parse_nvidia_smi,
    parse_rocm_smi,
    read_nvml,
)
from llamasup.memory.readings import (
    MEMINFO,
    OWN_CGROUPS,
    Device,
    limit_files,
    parse_meminfo,
    parse_sysctl,
    parse_vm_stat,
)
from llamasup.processes import asking

_NVIDIA_SMI: Final = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)
_ROCM_SMI: Final = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")
_SYSCTL: Final = ("sysctl", "hw.memsize", "hw.optional.arm64", "iogpu.wired_limit_mb")
_VM_STAT: Final = ("vm_stat",)

_AMD_SYSFS: Final = "/sys/class/drm/card*/device/mem_info_vram_*"


class Machine(Protocol):
    """Answers questions about memory. If a driver hangs, its last answer is given again.

    A cancelled question leaves nothing behind but threads and processes that cannot be ended.
    """

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """What the command prints, however it ends; "" if it never ran to its end."""

    async def read(self, *patterns: str) -> Mapping[str, str]:
        """The contents of files that match and can be read, by path."""

    async def nvml(self) -> list[Card]:
        """NVIDIA's GPUs, from NVIDIA's library; none if that is missing."""


async def cards(machine: Machine) -> list[Card]:
    """The GPUs that vendors' tools know of."""
    nvidia = await machine.nvml() or parse_nvidia_smi(await machine.run(*_NVIDIA_SMI))
    # The driver's own files come first: rocm-smi reads the same, but starts Python for it.
    amd = parse_amd_sysfs(await machine.read(_AMD_SYSFS))
    return nvidia + (amd or parse_rocm_smi(await machine.run(*_ROCM_SMI)))


async def host(machine: Machine) -> list[Device]:
    """The host's memory; nothing if the system does not tell."""
    files = await machine.read(MEMINFO, OWN_CGROUPS)
    if MEMINFO in files:
        limits = await machine.read(*limit_files(files.get(OWN_CGROUPS, "")))
        return parse_meminfo(files[MEMINFO], limits)
    sysctl = parse_sysctl(await machine.run(*_SYSCTL))
    if "hw.memsize" in sysctl:
        return parse_vm_stat(await machine.run(*_VM_STAT), sysctl)
    return []


async def physical_memory(machine: Machine) -> int:
    """All memory of the host, whatever our own limits are; 0 if no file says that."""
    files = await machine.read(MEMINFO)
    return sum(device.total for device in parse_meminfo(files.get(MEMINFO, ""), {}))


class ThisMachine:
    """The machine that we run on."""

    def __init__(self, patience: float = 10.0) -> None:
        self._patience = patience
        """A tool answers within a second, or never if a GPU has fallen off the bus."""

        self._said: dict[object, str] = {}
        self._cards: list[Card] = []
        self._at_nvml = threads.Lane()
        self._at_tools = threads.Lane()

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """See Machine."""
        question = command, environment and frozenset(environment.items())
        with suppress(OSError, asking.StillRunning):
            # Starting a missing program would take a hundred times as long as looking for it.
            if await self._at_tools.run(shutil.which, command[0], patience=self._patience) is None:
                return ""
            with trio.move_on_after(self._patience):
                ended = await asking.run(command, environment)
                # llama-server lists its devices on stdout or stderr, depending on version and mode.
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
    """The contents of files that match and can be read, by path."""
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

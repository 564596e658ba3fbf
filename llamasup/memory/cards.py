"""GPUs as vendors' tools see them: cheap to ask, but under other names than the engine's. Pure.

The readers accept whatever the tools print, even complaints, and leave out what they cannot read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import PurePosixPath
from typing import Any, Final

from attrs import frozen

_MIB: Final = 1 << 20


class Maker(Enum):
    """The vendor whose tool knows the GPU."""

    NVIDIA = "NVIDIA"
    AMD = "AMD"


@frozen
class Card:
    """One GPU; memory in bytes."""

    maker: Maker
    index: int
    """The GPU's number in the tool, which counts along the PCI bus."""

    total: int
    free: int
    label: str = ""
    """The GPU's name for people; "" if the tool does not say."""

    uuid: str = ""
    own_memory: bool = True
    """Has the GPU memory of its own? If not, the tool tells no size: it shares the host's."""


# Maker: NVIDIA

_ROW: Final = re.compile(r"(?m)^(\d+), ([\w-]+), (.+), (\d+|\[.+\]), (\d+|\[.+\])\r?$")
_NOT_ITS_OWN: Final = ("[N/A]", "[Not Supported]")


def parse_nvidia_smi(text: str) -> list[Card]:
    """Read `--query-gpu=index,uuid,name,memory.total,memory.free --format=csv,noheader,nounits`.

    A GPU whose memory the tool does not tell is left out.
    """
    cards = []
    for index, uuid, label, total, free in _ROW.findall(text):
        if total.isdecimal() and free.isdecimal():
            cards.append(_nvidia(int(index), label, uuid, int(total) * _MIB, int(free) * _MIB))
        elif total in _NOT_ITS_OWN:
            cards.append(_shared(int(index), label, uuid))
    return cards


def read_nvml(nvml: Any) -> list[Card]:
    """Ask the module `pynvml`. A GPU that does not answer it is left out."""
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        with suppress(nvml.NVMLError):
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            label, uuid = nvml.nvmlDeviceGetName(gpu), nvml.nvmlDeviceGetUUID(gpu)
            try:
                memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
            except nvml.NVMLError_NotSupported:
                found.append(_shared(index, label, uuid))
            else:
                found.append(_nvidia(index, label, uuid, memory.total, memory.free))
    return found


def _nvidia(index: int, label: str, uuid: str, total: int, free: int) -> Card:
    return Card(Maker.NVIDIA, index, total, free, label, uuid)


def _shared(index: int, label: str, uuid: str) -> Card:
    return Card(Maker.NVIDIA, index, 0, 0, label, uuid, own_memory=False)


# Maker: AMD


def parse_amd_sysfs(files: Mapping[str, str]) -> list[Card]:
    """Read `mem_info_vram_total` and `mem_info_vram_used` in the folders of the cards."""
    cards = []
    for folder in sorted({str(PurePosixPath(path).parent) for path in files}, key=_in_order):
        total = number(files, f"{folder}/mem_info_vram_total")
        used = number(files, f"{folder}/mem_info_vram_used")
        if total is not None and used is not None:
            cards.append((total, used, ""))
    return _amd(cards)


def parse_rocm_smi(text: str) -> list[Card]:
    """Read `rocm-smi --showmeminfo vram --json`, which may print warnings before the JSON."""
    try:
        answer = json.loads(text[text.index("{") :])
    except ValueError:
        return []
    cards = []
    for _, card in sorted(answer.items(), key=lambda entry: _in_order(entry[0])):
        total = number(card, "VRAM Total Memory (B)")
        used = number(card, "VRAM Total Used Memory (B)")
        if total is not None and used is not None:
            cards.append((total, used, card.get("Card Series") or card.get("Card series") or ""))
    return _amd(cards)


def _amd(cards: list[tuple[int, int, str]]) -> list[Card]:
    return [
        Card(Maker.AMD, index, total, max(total - used, 0), label)
        for index, (total, used, label) in enumerate(cards)
    ]


def _in_order(name: str) -> list[int]:
    """The key by which cards are sorted: card10 comes after card9."""
    return [int(digits) for digits in re.findall(r"\d+", name)]


def number(files: Mapping[str, str], *names: str) -> int | None:
    """The first of these values that is a number."""
    texts = (files.get(name, "").strip() for name in names)
    return next((int(text) for text in texts if text.isdecimal()), None)

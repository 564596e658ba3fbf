"""What models may hold of each device: all that others leave, less a reserve. Pure.

On the host, what children hold besides the files that they map is known. Files do not count: the
system takes their pages back when it needs them, and so calls them free; but what a model needs
includes its weights, or it would be read from the disk again and again.

What a process holds of a GPU is not known everywhere. So there, what others hold is measured while
no child comes or goes; while one does, the last measurement counts. The same is done for the host
where a GPU shares its memory, or where the system does not say what a process holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from llamasup.memory.readings import HOST, Device, Kind
from llamasup.memory.room import Amounts

_LARGEST_RESERVE = 1 << 30
_RESERVED_PART = 10


def reserve_of(device: Device, wished: int | Literal["auto"]) -> int:
    """What is left free of it: as the operator wishes, else a tenth, and never much."""
    return min(_LARGEST_RESERVE, device.total // _RESERVED_PART) if wished == "auto" else wished


def host_is_measured(devices: Iterable[Device]) -> bool:
    """Is it known what children hold of the host's memory? Not where GPUs hold some of it for them,
    nor on a Mac."""
    return not any(device.unified or device.kind is Kind.APPLE for device in devices)


def taken_by_others(devices: Sequence[Device], held: Amounts, held_of_host: int) -> dict[str, int]:
    """What is neither free nor held by children, device by device.

    `held` is what children should hold by their needs; of the host, `held_of_host` is measured,
    where it can be.
    """
    held = {**held, HOST: held_of_host} if host_is_measured(devices) else held
    return {
        device.budget: max(device.total - device.free - held.get(device.budget, 0), 0)
        for device in devices
        if not device.unified
    }


def budgets(
    devices: Iterable[Device], taken: Amounts, wished_reserve: int | Literal["auto"]
) -> Amounts:
    """What there is for models on each device."""
    # Of a GPU that is new since the last measurement, others hold all that is not free.
    rooms: Mapping[str, int] = {
        device.budget: device.total
        - taken.get(device.budget, device.total - device.free)
        - reserve_of(device, wished_reserve)
        for device in devices
        if not device.unified
    }
    return {name: max(room, 0) for name, room in rooms.items()}

"""What models may hold of each device: all that other programs leave, less a reserve. Pure.

On the host it is known what children hold besides the files that they map. Files do not count: the
system takes their pages back when it needs them, and so calls them free. But a model's need
includes its weights, or they would be read from the disk again and again.

On a GPU it is not always known what a process holds. So what other programs hold there is measured
while no child starts or ends; while one does, the last measurement counts. The same is done for the
host if a GPU shares its memory, or if the system does not say what a process holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from llamasup.memory.readings import HOST, Device, Kind
from llamasup.memory.room import Amounts

_LARGEST_RESERVE = 1 << 30
_RESERVED_PART = 10


def reserve_of(device: Device, wished: int | Literal["auto"]) -> int:
    """What is left free of a device: as the operator wishes, else a tenth, at most 1 GiB."""
    return min(_LARGEST_RESERVE, device.total // _RESERVED_PART) if wished == "auto" else wished


def host_is_measured(devices: Iterable[Device]) -> bool:
    """Is it known what children hold of the host's memory? Not if GPUs hold some of it for them,
    nor on a Mac."""
    return not any(device.unified or device.kind is Kind.APPLE for device in devices)


def taken_by_others(devices: Sequence[Device], held: Amounts, held_of_host: int) -> dict[str, int]:
    """What is neither free nor held by children, device by device.

    `held` is what children should hold according to their needs. For the host the measured
    `held_of_host` counts instead, if `host_is_measured`.
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
    """What models may hold on each device."""
    # If a GPU is new since the last measurement, all that is not free counts as taken.
    rooms: Mapping[str, int] = {
        device.budget: device.total
        - taken.get(device.budget, device.total - device.free)
        - reserve_of(device, wished_reserve)
        for device in devices
        if not device.unified
    }
    return {name: max(room, 0) for name, room in rooms.items()}

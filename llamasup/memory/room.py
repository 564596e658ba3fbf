"""How much models may take of each device, and whether a need fits in there. Pure.

The engine spreads layers over several GPUs in proportion to what is free on each when it loads. So
before a model is placed, it has no need of each single GPU, but one of all of them together, which
fits if their free memory together suffices. `"CUDA0+CUDA1"` is the name of such a union; its room
is the sum of its members' room. What a model holds of a member counts for the union, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from attrs import frozen

from llamasup.memory.readings import HOST

Amounts: TypeAlias = Mapping[str, int]
"""Bytes by the name of the device that has them, or the union of devices."""

_AND: Final = "+"


@frozen
class Room:
    """What may be taken, less the reserve. If a device is not in it, its room is unknown."""

    free: Amounts
    """What is free now."""

    most: Amounts
    """What would be free if all models were unloaded that may be."""


def union(devices: Iterable[str]) -> str:
    """The name of the union of these devices; of a single device, its own name."""
    return _AND.join(dict.fromkeys(devices))


def members(device: str) -> Sequence[str]:
    """The devices of a union; of a single device, only itself."""
    return device.split(_AND)


def limit(limits: Amounts, device: str) -> int | None:
    """How much there is of this device or union; None if that is not known."""
    sizes = [limits.get(member) for member in members(device)]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def spread(need: Amounts, free: Amounts, total: Amounts) -> dict[str, int]:
    """This need by single devices. The need of a union is spread in proportion to what is free on
    its members, as the engine does; or to all that they have, if nothing is free.
    """
    spread: dict[str, int] = {}
    for device, size in need.items():
        names = members(device)
        weights = [free.get(name, 0) for name in names]
        if not any(weights):
            weights = [total.get(name, 0) or 1 for name in names]
        for name, weight in zip(names, weights, strict=True):
            spread[name] = spread.get(name, 0) + size * weight // sum(weights)
    return spread


def with_unions(amounts: Amounts, unions: Iterable[str]) -> dict[str, int]:
    """These amounts, and in addition how much of them counts for each of these unions.

    An amount of another union counts in proportion to the members that both have.
    """
    return {**amounts, **{name: _within(amounts, set(members(name))) for name in unions}}


def _within(amounts: Amounts, devices: set[str]) -> int:
    return sum(
        size * len(devices.intersection(members(device))) // len(members(device))
        for device, size in amounts.items()
    )


def shortage(need: Amounts, limits: Amounts) -> str:
    """The device or union that has too little for this need; "" if there is none."""
    for device, size in need.items():
        there_is = limit(limits, device)
        if there_is is not None and size > there_is:
            return device
    return ""


def in_words(need: Amounts, limits: Amounts, device: str) -> str:
    """What is needed on a device, and what it has: "20.1 GiB on CUDA0, 8.0 GiB"."""
    where = "" if device == HOST else f" on {device}"
    return f"{_gib(need[device])}{where}, {_gib(limit(limits, device) or 0)}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"

"""How much models may take of each device, and whether somebody's need fits in there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from attrs import frozen

from llamasup.memory.hardware import HOST

Amounts: TypeAlias = Mapping[str, int]
"""Bytes by the name of the device that has them."""


@frozen
class Room:
    """What may be taken, less the reserve. A device that is not in it is not known to be full."""

    free: Amounts
    """Now."""

    most: Amounts
    """If all went that may go."""


def less(amounts: Amounts, reserve: int) -> Amounts:
    """What is left if the reserve stays untouched on every device."""
    return {device: max(amount - reserve, 0) for device, amount in amounts.items()}


def shortage(need: Amounts, limits: Amounts) -> str:
    """The device that has too little for this need; "" if none has."""
    short = (device for device, size in need.items() if size > limits.get(device, size))
    return next(short, "")


def in_words(need: Amounts, limits: Amounts, device: str) -> str:
    """What is needed of a device, and what there is: "20.1 GiB on CUDA0, 8.0 GiB"."""
    where = "" if device == HOST else f" on {device}"
    return f"{_gib(need[device])}{where}, {_gib(limits[device])}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"

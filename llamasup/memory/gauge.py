"""STUB, replaced by the merge."""

from __future__ import annotations

from llamasup.memory.hardware import Device, Machine, devices


class Gauge:
    """x"""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def devices(self) -> list[Device]:
        """x"""
        return await devices(self._machine)

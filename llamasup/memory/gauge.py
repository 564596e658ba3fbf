"""What memory there is at this moment, asked as often as anybody likes.

The host's is read anew each time, which takes a fraction of a millisecond. GPUs answer through
their vendors' tools, which take up to a second; they are asked a few times a second at most.
"""

from __future__ import annotations

import math

import trio

from llamasup.memory.hardware import Device, Machine, gpus, host, together

_OUT_OF_DATE = 0.2


class Gauge:
    """The devices of one machine over time."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._gpus: list[Device] = []
        self._asked_at = -math.inf
        self._asking = trio.Lock()

    async def devices(self) -> list[Device]:
        """The host's memory, where the system tells, and the GPUs."""
        return together(await host(self.machine), await self.gpus())

    async def gpus(self) -> list[Device]:
        """The GPUs alone; numbers of their own have those that do not share the host's memory."""
        async with self._asking:
            if trio.current_time() - self._asked_at >= _OUT_OF_DATE:
                self._gpus = await gpus(self.machine)
                self._asked_at = trio.current_time()
            return self._gpus

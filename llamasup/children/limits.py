"""How patient we are with children, and what they may hold: as configured now.

There is one such object, and every child looks at it. So a reload reaches those that run, too.
"""

from __future__ import annotations

import trio
from attrs import define, field

from llamasup.config.schema import Bytes, Config, Seconds


@define(eq=False)
class Limits:
    """For all children."""

    load_timeout: Seconds
    stop_grace: Seconds
    stall_timeout: Seconds
    health_interval: Seconds
    max_memory: Bytes | None
    retirement: Seconds
    _changed: trio.Event = field(factory=trio.Event, init=False)

    @classmethod
    def of(cls, config: Config) -> Limits:
        """As this configuration says."""
        engine, recovery = config.engine, config.recovery
        return cls(
            load_timeout=engine.load_timeout,
            stop_grace=engine.stop_grace,
            stall_timeout=recovery.stall_timeout,
            health_interval=recovery.health_interval,
            max_memory=engine.max_child_memory or None,
            retirement=recovery.retirement,
        )

    def adopt(self, other: Limits) -> None:
        """These hold from now on, for those that pause, too."""
        self.load_timeout = other.load_timeout
        self.stop_grace = other.stop_grace
        self.stall_timeout = other.stall_timeout
        self.health_interval = other.health_interval
        self.max_memory = other.max_memory
        self.retirement = other.retirement
        self._changed.set()
        self._changed = trio.Event()

    async def pause(self, seconds: float) -> None:
        """Sleep for so long, or until they have changed."""
        with trio.move_on_after(seconds):
            await self._changed.wait()

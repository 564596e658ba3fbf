"""The configuration in effect: one holder, which every room reads at the moment it matters.

So no room keeps a copy that would have to be updated. Only `running` replaces the configuration. A
value that was read before a wait may be out of date after it.
"""

from __future__ import annotations

import trio

from llamasup.config.schema import Config


class InEffect:
    """Holds the configuration in effect as `config`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._changed = trio.Event()

    def replace(self, config: Config) -> None:
        """Put another configuration into effect, and wake the tasks that `pause`."""
        self.config = config
        self._changed.set()
        self._changed = trio.Event()

    async def pause(self, seconds: float) -> None:
        """Sleep for so many seconds, or until another configuration is in effect. It may be
        cancelled."""
        with trio.move_on_after(seconds):
            await self._changed.wait()

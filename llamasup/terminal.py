"""The terminal that llamasup was started from: when it is closed, llamasup stops.

The kernel then sends SIGHUP, but service managers send it, too, for a new configuration. If the
terminal is gone when the signal comes, llamasup stops, unless it was started with nohup.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Final

_OWN: Final = "/dev/tty"
"""For each process that opens it, the terminal of that process, if there is one."""


class Terminal:
    """Our terminal, if we have one. To be made before llamasup handles SIGHUP itself."""

    def __init__(self) -> None:
        self._may_stop_us = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _is_there()

    @property
    def is_gone(self) -> bool:
        """Was the terminal closed, and should that stop llamasup?"""
        return self._may_stop_us and not _is_there()

    async def reloads(
        self, hangups: AsyncIterator[int], stop: Callable[[], None]
    ) -> AsyncIterator[int]:
        """The hangups that ask for a new configuration; the others call `stop`."""
        async for hangup in hangups:
            if self.is_gone:
                stop()
            else:
                yield hangup


def _is_there() -> bool:
    try:
        os.close(os.open(_OWN, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True

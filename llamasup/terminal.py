"""The terminal that llamasup was started from: when it is closed, llamasup stops.

A SIGHUP tells of that, but service managers send one, too, for a new configuration. If the terminal
is gone when it comes, it means a stop, unless llamasup was started to outlive it (nohup).
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Final

_OWN: Final = "/dev/tty"
"""The terminal of the process that opens it, if that has one."""


class Terminal:
    """Made at the start, before llamasup handles SIGHUP itself."""

    def __init__(self) -> None:
        self._binds_us = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _is_there()

    @property
    def is_gone(self) -> bool:
        """Is a terminal closed whose end should stop llamasup?"""
        return self._binds_us and not _is_there()

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

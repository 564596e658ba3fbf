"""The terminal that llamasup was started from: when it is closed, nobody is left who could stop us.

Its end is told by a SIGHUP, as service managers tell that there is a new configuration. One that
comes when the terminal is gone means the former, unless we were started to outlive it (nohup).
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Final

_OWN: Final = "/dev/tty"
"""To every process its own, if it has one."""


class Terminal:
    """Made at the start, before anybody listens to SIGHUP."""

    def __init__(self) -> None:
        self._binds_us = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _is_there()

    @property
    def is_gone(self) -> bool:
        """Was there one that binds us, and is it closed?"""
        return self._binds_us and not _is_there()

    async def reloads(
        self, hangups: AsyncIterator[int], stop: Callable[[], None]
    ) -> AsyncIterator[int]:
        """Those hangups that ask for a new configuration; at the others, `stop`."""
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

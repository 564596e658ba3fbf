"""The stdin of a process that we start: a pipe of which we hold the other end, as long as we live.

An engine in child mode ends when its stdin ends; but while it loads a model, it does not look. So
during a load it is tied to us: when we let go, or are gone, the kernel kills its group. The pipe
itself sends that signal (`O_ASYNC`). PR_SET_PDEATHSIG would not do: it is bound to the thread that
forks, and does not reach what the process has started. Where there is no F_SETSIG (macOS), nothing
is tied, and a process that is left behind ends after its load, or is swept by the next start.
"""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import suppress


class Lifeline:
    """For one process. Nothing is open before it is `made`, and after it was let go."""

    def __init__(self) -> None:
        self._stdin = self._ours = -1
        self._is_tied = False

    def made(self) -> int:
        """What the process gets as its stdin. Raises OSError, a shortage, without descriptors."""
        self._stdin, self._ours = os.pipe()
        return self._stdin

    def tie(self, group: int) -> None:
        """From now on the kernel kills this group of processes when our end of the pipe closes."""
        if hasattr(fcntl, "F_SETSIG"):
            fcntl.fcntl(self._stdin, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(self._stdin, fcntl.F_SETOWN, -group)
            flags = fcntl.fcntl(self._stdin, fcntl.F_GETFL)
            fcntl.fcntl(self._stdin, fcntl.F_SETFL, flags | os.O_ASYNC)
            self._is_tied = True

    def loosen(self) -> None:
        """Tie it no longer: when the pipe ends, the process sees that itself."""
        if self._is_tied:
            self._is_tied = False
            flags = fcntl.fcntl(self._stdin, fcntl.F_GETFL)
            fcntl.fcntl(self._stdin, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        self._stdin = _closed(self._stdin)

    def let_go(self) -> None:
        """Our end is closed. A process that is tied is killed by that."""
        self._ours = _closed(self._ours)
        self._stdin = _closed(self._stdin)


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        with suppress(OSError):
            os.close(descriptor)
    return -1

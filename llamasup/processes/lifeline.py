"""The stdin of a process that we start: a pipe whose other end we hold open as long as we live.

An engine in child mode ends when its stdin ends; but while it loads a model, it does not read
stdin. So during a load the engine is tied to us: when our end of the pipe closes, also by our
death, the kernel kills the engine's process group. The pipe itself sends that signal (`O_ASYNC`).
PR_SET_PDEATHSIG would not do: it depends on the thread that forks, and does not reach what the
process has started. Without F_SETSIG (macOS) nothing is tied; a process that is left behind ends
after its load, or the next llamasup ends it.
"""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import suppress


class Lifeline:
    """The lifeline of one process. Nothing is open before `made` and after `let_go`."""

    def __init__(self) -> None:
        self._stdin = self._ours = -1
        self._is_tied = False

    def made(self) -> int:
        """Open the pipe, and return the descriptor that the process gets as its stdin. Raises
        OSError, a shortage, if there are no descriptors."""
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
        """Untie the process: from now on it reads by itself that its stdin ends."""
        if self._is_tied:
            self._is_tied = False
            flags = fcntl.fcntl(self._stdin, fcntl.F_GETFL)
            fcntl.fcntl(self._stdin, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        self._stdin = _closed(self._stdin)

    def let_go(self) -> None:
        """Close our end. That kills a process that is tied."""
        self._ours = _closed(self._ours)
        self._stdin = _closed(self._stdin)


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        with suppress(OSError):
            os.close(descriptor)
    return -1

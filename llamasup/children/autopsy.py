"""What is noted about a child while it lives, to explain later why it died.

This is the end of its log, and how often the kernel has killed a process for want of memory.
"""

from __future__ import annotations

from collections import deque

import trio

from llamasup.children.manners import Manners
from llamasup.engine.failures import Cause, Heard, Kind
from llamasup.memory.host import OomKills

_TAIL = 100
"""Lines. With more of them, a dozen models would take most of the memory that llamasup uses."""

_LOOKS_FOR_KILLS = 5.0

_NO_RUNGS = "; it cannot be started with less, so write what it takes as its `memory`"


class Autopsy:
    """The notes about one child."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self.tail: deque[Heard] = deque(maxlen=_TAIL)
        """The last lines of its log."""

        self._kills = OomKills()

    def heard(self, line: str) -> None:
        """The child wrote this line."""
        self.tail.append(Heard(trio.current_time(), line))

    def look_for_kills(self) -> None:
        """Count the kernel's kills: those until now do not explain the end of this child."""
        self._kills.look(trio.current_time())

    async def keep_looking(self) -> None:
        """Count them until cancelled, so that no old kill of another process explains a later
        death."""
        while True:
            await trio.sleep(_LOOKS_FOR_KILLS)
            self.look_for_kills()

    def cause(self, status: int | None, *, was_ready: bool) -> Cause:
        """Why the child has ended with this status, just now."""
        now = trio.current_time()
        if was_ready:
            cause = self._manners.why_dead(status, self.tail, now)
        else:
            cause = self._manners.why_not_started(status, [line.text for line in self.tail])
        if cause.kind is Kind.KILLED and self._kills.just_now(now):
            hint = "" if self._manners.has_rungs else _NO_RUNGS
            return Cause(Kind.OUT_OF_MEMORY, f"the kernel killed it, for memory had run out{hint}")
        return cause

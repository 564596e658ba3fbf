"""What is gathered of a child while it lives, to explain why it died.

These are its last words, and how often the kernel has killed for want of memory.
"""

from __future__ import annotations

from collections import deque

import trio

from llamasup.engine.failures import Cause, Heard, Kind, explain, explain_death
from llamasup.memory.host import OomKills

_TAIL = 100
"""Lines. A dozen models that each keep more would be the most of what llamasup holds."""

_LOOKS_FOR_KILLS = 5.0


class Autopsy:
    """Of one child."""

    def __init__(self) -> None:
        self.tail: deque[Heard] = deque(maxlen=_TAIL)
        """Its last lines."""

        self._kills = OomKills()

    def heard(self, line: str) -> None:
        """It wrote this line."""
        self.tail.append(Heard(trio.current_time(), line))

    def look_for_kills(self) -> None:
        """Kills that the kernel has made until now are not of this child."""
        self._kills.look(trio.current_time())

    async def keep_looking(self) -> None:
        """Until cancelled: so that an old kill, of any process, does not explain a death later."""
        while True:
            await trio.sleep(_LOOKS_FOR_KILLS)
            self.look_for_kills()

    def cause(self, status: int | None, *, was_ready: bool) -> Cause:
        """Why it has ended with this status, just now."""
        now = trio.current_time()
        if was_ready:
            cause = explain_death(status, self.tail, now)
        else:
            cause = explain(status, [line.text for line in self.tail])
        if cause.kind is Kind.KILLED and self._kills.just_now(now):
            return Cause(Kind.OUT_OF_MEMORY, "the kernel killed it, for memory had run out")
        return cause

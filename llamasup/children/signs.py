"""Signs of life of a child that is in use, and the verdict on one that shows none.

Pure: now is an argument. A token, a step of a prefill, or a change in the slots are the best signs.
In the middle of a batch llama-server shows none of them, and does not even answer; but it computes.
A child that hangs rarely computes. For one that does, there is a second, much longer limit.
"""

from __future__ import annotations

from typing import Final

from attrs import define

LEAST_EFFORT: Final = 0.02
"""Seconds of computing per second. Without work, llama-server takes less than a thousandth."""

_SOME_TICKS: Final = 0.05
"""Seconds. The kernel counts in hundredths, and answering our questions takes a few of them."""

LONGEST_BATCH: Final = 12
"""The longer limit, as a multiple of `stall_timeout`: by default 36 minutes. That is enough for a
batch of 2,048 tokens at one token a second."""


@define
class Signs:
    """What was seen of a child since the watchdog began to look at it."""

    moved: float
    """When it last made progress with an answer."""

    worked: float
    """When it was last seen to have computed."""

    _slots: bytes | None = None
    _is_silent: bool = False
    _stand_still: bool = False
    _effort: tuple[float, float] | None = None

    @classmethod
    def since(cls, now: float) -> Signs:
        """A new start: nothing was seen yet."""
        return cls(moved=now, worked=now)

    def heard(self, at: float) -> None:
        """The child last made progress at this time. Earlier news of its slots is out of date."""
        if at > self.moved:
            self.moved = at
            self._slots = None

    def computed(self, now: float, seconds: float | None) -> None:
        """The child has computed for `seconds` in all; None if that is not known."""
        if self._effort is not None and seconds is not None:
            then, before = self._effort
            more = seconds - before  # less than 0 if one of its processes has ended
            if more < 0 or more >= max(LEAST_EFFORT * (now - then), _SOME_TICKS):
                self.worked = now
        self._effort = None if seconds is None else (now, seconds)

    def told(self, now: float, answer: tuple[int, bytes] | None) -> None:
        """The status and body of its answer about its slots; None if it did not answer."""
        status, slots = answer or (0, b"")
        news = slots if status == 200 else None
        if news is not None and self._slots is not None and news != self._slots:
            self.moved = now
        self._stand_still = news is not None and news == self._slots
        self._is_silent = answer is None
        self._slots = news

    def verdict(self, now: float, patience: float) -> str | None:
        """Why the child has to be ended, in words; None if it need not."""
        silence = now - self.moved
        if silence >= LONGEST_BATCH * patience:
            return f"it did not move for {silence:.0f} s, though it was busy"
        if silence < patience or not self._looks_dead(now, patience):
            return None
        return f"it did not move for {silence:.0f} s"

    def _looks_dead(self, now: float, patience: float) -> bool:
        if self._effort is None:
            return self._is_silent or self._stand_still
        if now - self.worked < patience:
            return False
        # A first answer that was not yet compared with another one says nothing.
        return self._slots is None or self._stand_still

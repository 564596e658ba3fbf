"""A child's slots: how many requests it may work on at once, and who waits for one.

llama-server has a queue of its own, but without fairness, headers or an eye for clients that
leave. So no child is ever sent more than it has slots for; the rest wait here, first come first
served.
"""

from __future__ import annotations

from collections import deque

import trio


class SlotsClosed(Exception):
    """The child is going; ask for the next one."""


class _Waiter:
    __slots__ = ("answered", "got")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.got = False


class Slots:
    """`size` places, handed from one request directly to the next."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self.turns = 0
        """How many requests have had a slot, and gave it back."""

        self._waiters: deque[_Waiter] = deque()
        self._open = True

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiters)

    async def take(self) -> None:
        """Take a slot, waiting for one. Cancelled, nothing is held. Raises SlotsClosed."""
        if not self._open:
            raise SlotsClosed
        if self.taken < self.size:
            self.taken += 1
            return
        waiter = _Waiter()
        self._waiters.append(waiter)
        try:
            await waiter.answered.wait()
        except trio.Cancelled:
            # Between the cancellation and this line, it may still have been answered.
            if waiter.got:
                self.give_back()
            elif not waiter.answered.is_set():
                self._waiters.remove(waiter)
            raise
        if not waiter.got:
            raise SlotsClosed

    def give_back(self) -> None:
        """Hand the slot to whoever waits longest, or keep it free."""
        self.turns += 1
        if self._waiters and self.taken <= self.size:
            waiter = self._waiters.popleft()
            waiter.got = True
            waiter.answered.set()
        else:
            self.taken -= 1

    def resize(self, size: int) -> None:
        """The engine says how many slots it really has."""
        self.size = size
        while self._waiters and self.taken < self.size:
            self.taken += 1
            self.give_back()

    def close(self) -> None:
        """Turn away everybody who waits; slots that are taken stay taken."""
        self._open = False
        while self._waiters:
            self._waiters.popleft().answered.set()

"""A child's slots: how many requests it may work on at once.

llama-server has a queue of its own, but that is not fair, reads no headers and does not notice
clients that leave. So a child never gets more requests than it has slots: they wait in the pool.
"""

from __future__ import annotations

import trio


class Slots:
    """`size` places, of which some are taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        """The number of slots, corrected when the engine says how many it really has."""

        self.taken = 0
        self.turns = 0
        """How many requests have had a slot and given it back."""

        self.closed = trio.Event()
        """Set when the child will end: no request is let in any more. Taken slots stay taken."""

    @property
    def free(self) -> bool:
        """Is there a slot for another request?"""
        return self.taken < self.size and not self.closed.is_set()

    def take(self) -> None:
        """Take a free slot."""
        self.taken += 1

    def give_back(self) -> None:
        """Give a slot back."""
        self.taken -= 1
        self.turns += 1

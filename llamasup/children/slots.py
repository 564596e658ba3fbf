"""A child's slots: how many requests it may work on at once.

llama-server has a queue of its own, but without fairness, headers or an eye for clients that
leave. So no child is ever sent more than it has slots for; requests wait for a slot in the pool.
"""

from __future__ import annotations

import trio


class Slots:
    """`size` places, of which some are taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        """As many as the engine says that it really has."""

        self.taken = 0
        self.turns = 0
        """How many requests have had a slot, and gave it back."""

        self.closed = trio.Event()
        """The child is going: no request is let in any more. What is taken stays taken."""

    @property
    def free(self) -> bool:
        """Is there one for another request?"""
        return self.taken < self.size and not self.closed.is_set()

    def take(self) -> None:
        """Take one that is free."""
        self.taken += 1

    def give_back(self) -> None:
        """It is free again."""
        self.taken -= 1
        self.turns += 1

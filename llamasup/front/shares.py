"""How much of something each client may hold of what all of them share.

No client may hold more than what is left for others: one client at most half of all, two a third
each. So there is always room for one more, and the client that has most is the first to wait.
"""

from __future__ import annotations


class Shares:
    """How much each client holds."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._of: dict[str, int] = {}

    def allow(self, holder: str, amount: int) -> bool:
        """May it have so much more?"""
        return self._of.get(holder, 0) + amount <= self.limit - self.taken

    def take(self, holder: str, amount: int) -> None:
        """It has so much more."""
        self._of[holder] = self._of.get(holder, 0) + amount
        self.taken += amount

    def give_back(self, holder: str, amount: int) -> None:
        """It has so much less."""
        left = self._of[holder] - amount
        self.taken -= amount
        if left:
            self._of[holder] = left
        else:
            del self._of[holder]

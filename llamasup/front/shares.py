"""How much each client may hold of something that all clients share.

No client may hold more than what is left over: a single client at most half, two clients a third
each. So there is always room for one more client, and the one that holds most has to wait first.
"""

from __future__ import annotations


class Shares:
    """How much each client holds."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._of: dict[str, int] = {}

    def allow(self, holder: str, amount: int) -> bool:
        """May this client have this much more?"""
        return self._of.get(holder, 0) + amount <= self.limit - self.taken

    def take(self, holder: str, amount: int) -> None:
        """This client has this much more."""
        self._of[holder] = self._of.get(holder, 0) + amount
        self.taken += amount

    def give_back(self, holder: str, amount: int) -> None:
        """This client has this much less."""
        left = self._of[holder] - amount
        self.taken -= amount
        if left:
            self._of[holder] = left
        else:
            del self._of[holder]

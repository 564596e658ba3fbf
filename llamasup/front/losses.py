"""How many engines one request may lose before it is not sent again. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_MOST: Final = 8
"""The most engines that one request may lose, even if other requests have ended them."""


class Losses:
    """The engines that were lost while they had one request. Whether another request caused a loss
    is asked each time, because it may become known later."""

    def __init__(self, most_own: int) -> None:
        """The request may be to blame for `most_own` losses."""
        self._most_own = most_own
        self._caused_by_others: list[Callable[[], bool]] = []

    def add(self, caused_by_other: Callable[[], bool]) -> None:
        """One more engine was lost."""
        self._caused_by_others.append(caused_by_other)

    @property
    def may_grow(self) -> bool:
        """May the request lose one more engine by its own fault, and be sent again?"""
        return self._own < self._most_own

    @property
    def are_too_many(self) -> bool:
        """Are there too many losses to send the request again?"""
        return self._own > self._most_own or len(self._caused_by_others) > _MOST

    @property
    def _own(self) -> int:
        return sum(not caused_by_other() for caused_by_other in self._caused_by_others)

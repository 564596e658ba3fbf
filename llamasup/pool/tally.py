"""How many of something each name has, and which names have the most. Pure.

Every change takes the same time, however many are counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Reversible
from typing import Generic, TypeVar

N = TypeVar("N", bound=Hashable)


class Tally(Generic[N]):
    """Counts by name. A name whose count is zero is not kept."""

    def __init__(self) -> None:
        self._counts: dict[N, int] = {}
        self._having: dict[int, OrderedDict[N, None]] = {}
        """For each count: the names that have it, in the order in which they reached it."""

        self._most = 0

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __getitem__(self, name: N) -> int:
        return self._counts.get(name, 0)

    @property
    def leaders(self) -> Reversible[N]:
        """The names with the highest count, in the order in which they reached it."""
        return self._having.get(self._most, {})

    def add(self, name: N) -> None:
        """Count one more for this name."""
        self._change(name, 1)
        self._most = max(self._most, self._counts[name])

    def take(self, name: N) -> None:
        """Count one less for this name. Raises KeyError if it has none."""
        if name not in self._counts:
            raise KeyError(name)
        self._change(name, -1)
        if self._most not in self._having:
            self._most -= 1

    def _change(self, name: N, by: int) -> None:
        before = self._counts.pop(name, 0)
        if before:
            del self._having[before][name]
            if not self._having[before]:
                del self._having[before]
        if now := before + by:
            self._counts[name] = now
            self._having.setdefault(now, OrderedDict())[name] = None

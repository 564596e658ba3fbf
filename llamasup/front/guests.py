"""Which connections are open, from which places, and which one is closed for a new one. Pure.

Of those that rest, the place that has most of them loses the one that has rested longest. So a
client that opens connections and does not use them loses its own. No place may hold more than three
quarters of all, so that some room is left for others. (Half would be little for a proxy: all its
clients come from its address.)

Every change and every choice of one cost the same, however many there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from itertools import islice, takewhile
from typing import Generic, TypeVar

from llamasup.pool.tally import Tally

G = TypeVar("G", bound=Hashable)


class Guests(Generic[G]):
    """All open connections. One rests while no request of its is under way."""

    def __init__(self) -> None:
        self._place_of: dict[G, str] = {}
        self._from = Tally[str]()
        self._resting: dict[str, OrderedDict[G, None]] = {}
        """By place; the one that rests longest comes first."""

        self._resting_from = Tally[str]()

    def __len__(self) -> int:
        return len(self._place_of)

    def __iter__(self) -> Iterator[G]:
        return iter([*self._place_of])

    def come(self, guest: G, place: str) -> None:
        """It was opened, and rests."""
        self._place_of[guest] = place
        self._from.add(place)
        self.rest(guest)

    def go(self, guest: G) -> None:
        """It was closed. Doing this again is harmless."""
        self.act(guest)
        if place := self._place_of.pop(guest, None):
            self._from.take(place)

    def rest(self, guest: G) -> None:
        """It rests from now on, if it is open and did not rest yet."""
        place = self._place_of.get(guest)
        if place is None:
            return
        resting = self._resting.setdefault(place, OrderedDict())
        if guest not in resting:
            resting[guest] = None
            self._resting_from.add(place)

    def act(self, guest: G) -> None:
        """It does not rest any more."""
        place = self._place_of.get(guest, "")
        resting = self._resting.get(place)
        if resting is None or guest not in resting:
            return
        del resting[guest]
        self._resting_from.take(place)
        if not resting:
            del self._resting[place]

    def resting(self, long_enough: Callable[[G], bool], most: int) -> list[G]:
        """Those that rest long enough; so many at most."""
        found = (
            guest for resting in self._resting.values() for guest in takewhile(long_enough, resting)
        )
        return list(islice(found, most))

    def is_full_for(self, place: str, most: int) -> bool:
        """With a limit of `most`: is there no room for another one from there?"""
        return len(self) >= most or self.has_its_part(place, most)

    def has_its_part(self, place: str, most: int) -> bool:
        """With a limit of `most`: has the place as many as it may have?"""
        return self._from[place] >= -(-most * 3 // 4)

    def who_goes_for(self, place: str, most: int) -> G | None:
        """With a limit of `most`: which one may be closed for another one from `place`.

        One of the same place, if it has its part, or if no place has more that rest. None if all
        that could be closed are busy.
        """
        own, leader = self._resting_from[place], self._leader
        if self.has_its_part(place, most) or (own and own + 1 >= self._resting_from[leader]):
            leader = place
        return self._longest_resting(leader)

    def who_rests_longest(self) -> G | None:
        """Of those from the place that has most of them resting; None if none rests."""
        return self._longest_resting(self._leader)

    @property
    def _leader(self) -> str:
        return next(iter(self._resting_from.leaders), "")

    def _longest_resting(self, place: str) -> G | None:
        return next(iter(self._resting.get(place, ())), None)

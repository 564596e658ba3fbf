"""Who is in the house, from which place, and who has to go for whoever comes when it is full. Pure.

The one that has rested longest goes, of those from the place that has most of them resting. So
whoever opens connections and does nothing with them loses his own. And nobody fills the house
alone: from one place come three quarters at most, so that some room is left to all others. (Half
would be little for a proxy, behind which everybody comes from its address.)

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
    """All that are in. A guest rests while nothing of a request of it is under way."""

    def __init__(self) -> None:
        self._place_of: dict[G, str] = {}
        self._from = Tally[str]()
        self._resting: dict[str, OrderedDict[G, None]] = {}
        """By place, who rests longest first."""

        self._resting_from = Tally[str]()

    def __len__(self) -> int:
        return len(self._place_of)

    def __iter__(self) -> Iterator[G]:
        return iter([*self._place_of])

    def come(self, guest: G, place: str) -> None:
        """It is in, and rests."""
        self._place_of[guest] = place
        self._from.add(place)
        self.rest(guest)

    def go(self, guest: G) -> None:
        """It is in no more. Doing it again is harmless."""
        self.act(guest)
        if place := self._place_of.pop(guest, None):
            self._from.take(place)

    def rest(self, guest: G) -> None:
        """It rests from now on, if it is in, and did not yet."""
        place = self._place_of.get(guest)
        if place is None:
            return
        resting = self._resting.setdefault(place, OrderedDict())
        if guest not in resting:
            resting[guest] = None
            self._resting_from.add(place)

    def act(self, guest: G) -> None:
        """It rests no more, if it did."""
        place = self._place_of.get(guest, "")
        resting = self._resting.get(place)
        if resting is None or guest not in resting:
            return
        del resting[guest]
        self._resting_from.take(place)
        if not resting:
            del self._resting[place]

    def resting(self, long_enough: Callable[[G], bool], most: int) -> list[G]:
        """Those who rest long enough; so many at most."""
        found = (
            guest for resting in self._resting.values() for guest in takewhile(long_enough, resting)
        )
        return list(islice(found, most))

    def is_full_for(self, place: str, most: int) -> bool:
        """Where at most so many may be in, is there no room for another one from there?"""
        return len(self) >= most or self.has_its_part(place, most)

    def has_its_part(self, place: str, most: int) -> bool:
        """Where at most so many may be in, have as many come from there as may?"""
        return self._from[place] >= -(-most * 3 // 4)

    def who_goes_for(self, place: str, most: int) -> G | None:
        """Whose room another one from `place` may have, where at most so many may be in.

        One of its own, if it has its part, or if no place would have more that rest. None if all
        who could go are busy.
        """
        own, leader = self._resting_from[place], self._leader
        if self.has_its_part(place, most) or (own and own + 1 >= self._resting_from[leader]):
            leader = place
        return self._longest_resting(leader)

    def who_rests_longest(self) -> G | None:
        """Of those from the place that has most of them resting; None if nobody rests."""
        return self._longest_resting(self._leader)

    @property
    def _leader(self) -> str:
        return next(iter(self._resting_from.leaders), "")

    def _longest_resting(self, place: str) -> G | None:
        return next(iter(self._resting.get(place, ())), None)

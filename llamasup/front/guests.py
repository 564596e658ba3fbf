"""Which connections are open, from which places, and which one is closed for a new one. Pure.

The place with the most resting connections loses the one that has rested longest. So a client that
opens connections and does not use them loses its own. No place may hold more than three quarters of
all connections, so that some room is left for others. (Half would be too few for a proxy, because
all its clients come from its address.)

Every change and every choice take the same time, however many connections there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from itertools import islice, takewhile
from typing import Generic, TypeVar

from llamasup.pool.tally import Tally

G = TypeVar("G", bound=Hashable)


class Guests(Generic[G]):
    """All open connections. A connection rests while none of its requests is read or answered."""

    def __init__(self) -> None:
        self._place_of: dict[G, str] = {}
        self._from = Tally[str]()
        self._resting: dict[str, OrderedDict[G, None]] = {}
        """The resting connections of each place; the one that has rested longest comes first."""

        self._resting_from = Tally[str]()

    def __len__(self) -> int:
        return len(self._place_of)

    def __iter__(self) -> Iterator[G]:
        return iter([*self._place_of])

    def add(self, guest: G, place: str) -> None:
        """A connection was opened, and rests."""
        self._place_of[guest] = place
        self._from.add(place)
        self.rest(guest)

    def remove(self, guest: G) -> None:
        """A connection was closed. Calling this again is harmless."""
        self.wake(guest)
        if place := self._place_of.pop(guest, None):
            self._from.take(place)

    def rest(self, guest: G) -> None:
        """A connection rests from now on, unless it is closed or rests already."""
        place = self._place_of.get(guest)
        if place is None:
            return
        resting = self._resting.setdefault(place, OrderedDict())
        if guest not in resting:
            resting[guest] = None
            self._resting_from.add(place)

    def wake(self, guest: G) -> None:
        """A connection does not rest any more."""
        place = self._place_of.get(guest, "")
        resting = self._resting.get(place)
        if resting is None or guest not in resting:
            return
        del resting[guest]
        self._resting_from.take(place)
        if not resting:
            del self._resting[place]

    def resting(self, long_enough: Callable[[G], bool], most: int) -> list[G]:
        """At most `most` connections that rest long enough."""
        found = (
            guest for resting in self._resting.values() for guest in takewhile(long_enough, resting)
        )
        return list(islice(found, most))

    def is_full_for(self, place: str, most: int) -> bool:
        """With a limit of `most`: is there no room for another connection from there?"""
        return len(self) >= most or self.has_its_share(place, most)

    def has_its_share(self, place: str, most: int) -> bool:
        """With a limit of `most`: has the place as many connections as it may have?"""
        return self._from[place] >= -(-most * 3 // 4)

    def to_close_for(self, place: str, most: int) -> G | None:
        """With a limit of `most`: which connection may be closed for a new one from `place`.

        It is one of the same place, if that has its share, or if no place has more resting ones.
        None if all that could be closed are busy.
        """
        own, leader = self._resting_from[place], self._leader
        if self.has_its_share(place, most) or (own and own + 1 >= self._resting_from[leader]):
            leader = place
        return self._longest_resting(leader)

    def to_close(self) -> G | None:
        """The connection that has rested longest, of the place with the most resting ones; None if
        none rests."""
        return self._longest_resting(self._leader)

    @property
    def _leader(self) -> str:
        return next(iter(self._resting_from.leaders), "")

    def _longest_resting(self, place: str) -> G | None:
        return next(iter(self._resting.get(place, ())), None)

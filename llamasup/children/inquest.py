"""Which requests may have ended a child: those in flight at its death, and those shortly before.

Each says itself what it is, when it is done with the child. What that means, `suspects` decides.
"""

from __future__ import annotations

from collections import deque

import trio

from llamasup.children.suspects import Accused, Suspects
from llamasup.engine.failures import Cause, Kind

_FLIGHT = 5.0
"""Seconds for which a request is suspected whose client has left without an answer."""

_MOST_FUGITIVES = 256

_LAID_TO_REQUESTS = {Kind.CRASH, Kind.KILLED, Kind.HANG, Kind.UNKNOWN}
"""Ends that a request may have caused, unlike want of memory, or an end that was wished."""


class Inquest:
    """Into the death of one child."""

    def __init__(self) -> None:
        self.in_flight = 0
        """How many requests used it when it was found to be dead, or as good as that, or did so
        until shortly before and were not answered."""

        self.accused: list[Accused] = []
        """Those of them that could be told."""

        self.death = 0
        """The number of this death among those of the model; 0 if it is not one, or not yet."""

        self.over = trio.Event()
        """The child is gone, and what that means for the requests is known."""

        self._fugitives: deque[tuple[float, Accused]] = deque(maxlen=_MOST_FUGITIVES)

    def note_fugitive(self, one: Accused) -> None:
        """The client of this request leaves without an answer, and the child lives."""
        self._fugitives.append((trio.current_time(), one))

    def take_stock(self, users: int) -> None:
        """The child dies, and so many requests use it."""
        since = trio.current_time() - _FLIGHT
        fugitives = [one for at, one in self._fugitives if at >= since]
        self.accused += fugitives
        self.in_flight = users + len(fugitives)

    def conclude(self, cause: Cause, suspects: Suspects) -> int:
        """All have said what they are. How many deaths are laid to requests by this one?

        0 if it is the model's.
        """
        explained = suspects.note_death(
            self.accused,
            self.in_flight,
            trio.current_time(),
            from_outside=cause.kind is Kind.KILLED,
        )
        self.death = suspects.deaths
        return explained


def may_be_a_requests_doing(cause: Cause, *, by_itself: bool) -> bool:
    """Did a child that was ready end for a cause that a request can bring about?"""
    gave_up = by_itself and cause.kind is Kind.OUT_OF_MEMORY and not cause.proven
    return gave_up or cause.kind in _LAID_TO_REQUESTS

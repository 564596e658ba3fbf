"""Which requests may have ended a child: those in flight at its death, and those shortly before.

Each request reports itself when it is done with the child. `suspects` decides what that means.
"""

from __future__ import annotations

from collections import deque

import trio

from llamasup.children.suspects import Accused, Suspects
from llamasup.engine.failures import Cause, Kind

_FLIGHT = 5.0
"""Seconds for which a request that its client has abandoned is suspected."""

_MOST_ABANDONED = 256

_LAID_TO_REQUESTS = {Kind.CRASH, Kind.KILLED, Kind.HANG, Kind.UNKNOWN}
"""Ends that a request may have caused. Want of memory is none of them, nor an end that we
wanted."""


class Inquest:
    """The inquest into the death of one child."""

    def __init__(self) -> None:
        self.in_flight = 0
        """How many requests used the child when it was found to be dead or hanging, or had used it
        until shortly before, without being answered."""

        self.accused: list[Accused] = []
        """Those of them that could be identified."""

        self.death = 0
        """The number of this death among those of the model; 0 if it does not count as one, or not
        yet."""

        self.over = trio.Event()
        """Set when the child is gone, and it is known what that means for the requests."""

        self._abandoned: deque[tuple[float, Accused]] = deque(maxlen=_MOST_ABANDONED)

    def note_abandoned(self, one: Accused) -> None:
        """The client of this request leaves without an answer, while the child lives."""
        self._abandoned.append((trio.current_time(), one))

    def note_in_flight(self, users: int) -> None:
        """The child is dying while `users` requests use it."""
        since = trio.current_time() - _FLIGHT
        abandoned = [one for at, one in self._abandoned if at >= since]
        self.accused += abandoned
        self.in_flight = users + len(abandoned)

    def conclude(self, cause: Cause, suspects: Suspects) -> int:
        """All requests have reported. How many deaths, with this one, are now blamed on a request?

        0 if this death is the model's own.
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

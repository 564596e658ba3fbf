"""Tries requests that may have ended the engine: one at a time, and with no innocent one beside it.

If a suspect does no harm for some seconds, the next one is tried while it goes on: a request that
kills an engine mostly does so before the first token. The other requests wait meanwhile, but not
for ever: after ten seconds they are let in for ten seconds, and no suspect is tried in that time.

If innocent requests are answered all the time, no suspect can be alone. After three such waits,
suspects wait like all other requests, and are let in beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import trio

from llamasup import tending
from llamasup.children.child import Child

TRIAL: Final = 2.0
"""The most seconds that one suspect is tried."""

TRIALS: Final = 10.0
"""Seconds that other requests wait for trials; then they are let in for as long."""

VAIN_SESSIONS: Final = 3
"""After so many waits in which no suspect could be tried, other requests do not wait any more."""

_SHORTEST: Final = 0.5


class Tried(Protocol):
    """What the dock has to know of a visit."""

    child: Child | None


class Dock:
    """The dock of one model. `admit` is called when another request may be let in."""

    def __init__(
        self, nursery: trio.Nursery, waiting: Callable[[], int], admit: Callable[[], None]
    ) -> None:
        self._nursery = nursery
        self._waiting = waiting
        self._admit = admit
        self._on_trial: Tried | None = None
        self._let_in: set[Tried] = set()
        self._trial = trio.CancelScope()
        self._is_in_session = False
        self._vain_sessions = 0
        self._has_clock = False

    def lets_in(self, child: Child, suspect: bool) -> bool:
        """May another request enter now? `suspect` says whether it is one."""
        if self._on_trial is not None:
            return False
        if suspect:
            return self._is_in_vain or self._is_without_innocents(child)
        return not (self._is_in_session and self._waiting()) or self._is_in_vain

    def suspect_waits(self) -> None:
        """A suspect waits: for some seconds, no other request is let in."""
        if not self._has_clock:
            self._has_clock = self._is_in_session = True
            self._nursery.start_soon(tending.alone, "the clock of a dock", self._take_turns)

    def enters(self, visit: Tried, child: Child) -> None:
        """A suspect was let in."""
        self._let_in.add(visit)
        if self._is_without_innocents(child):
            self._on_trial = visit
            self._vain_sessions = 0
            self._nursery.start_soon(tending.alone, "the clock of a trial", self._end_later, visit)

    def tries(self, visit: Tried) -> bool:
        """Is this visit on trial at this moment?"""
        return self._on_trial is visit

    def leaves(self, visit: Tried) -> None:
        """This visit is over, whether it is a suspect's or not."""
        self._let_in.discard(visit)
        if self._on_trial is visit:
            self._on_trial = None
            self._trial.cancel()

    @property
    def _is_in_vain(self) -> bool:
        return self._vain_sessions >= VAIN_SESSIONS

    def _is_without_innocents(self, child: Child) -> bool:
        return child.users == sum(one.child is child for one in self._let_in)

    async def _end_later(self, visit: Tried) -> None:
        """End the trial after a while: the more suspects wait, the sooner."""
        if self._on_trial is not visit:
            return  # the visit was over before this clock began
        with trio.CancelScope() as self._trial:
            await trio.sleep(max(TRIALS / (self._waiting() + TRIALS / TRIAL), _SHORTEST))
        if self._on_trial is visit:
            self._on_trial = None
            self._admit()

    async def _take_turns(self) -> None:
        try:
            while self._waiting():
                await trio.sleep(TRIALS)
                self._vain_sessions += self._is_in_session
                self._is_in_session = not self._is_in_session
                self._admit()
        finally:
            self._has_clock = self._is_in_session = False
            self._vain_sessions = 0

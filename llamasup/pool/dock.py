"""Where requests that may have ended the engine are tried: one at a time, beside no innocent one.

Who does no harm for some seconds may go on while the next one is tried; what kills an engine does
it as a rule before the first token. All others wait meanwhile, but not for ever: after ten seconds
they have ten, in which nobody is tried beside them.

Where innocent ones are at it all the time nobody can be alone. That is seen after three such waits,
and then suspects wait like all others, and are let in beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import trio

from llamasup import tending
from llamasup.children.child import Child

TRIAL: Final = 2.0
"""Seconds that somebody is tried, at most."""

TRIALS: Final = 10.0
"""Seconds that others wait for them; then they are let in for as long."""

VAIN_SESSIONS: Final = 3
"""In which nobody could be tried: then there is no waiting for it any more."""

_SHORTEST: Final = 0.5


class Tried(Protocol):
    """What of a visit matters here."""

    child: Child | None


class Dock:
    """That of one model. `admit` is called when somebody else may be let in."""

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
        """May another one enter now, who is a suspect or not?"""
        if self._on_trial is not None:
            return False
        if suspect:
            return self._is_in_vain or self._is_without_innocents(child)
        return not (self._is_in_session and self._waiting()) or self._is_in_vain

    def is_awaited(self) -> None:
        """A suspect waits: for some seconds, nobody else is let in."""
        if not self._has_clock:
            self._has_clock = self._is_in_session = True
            self._nursery.start_soon(tending.alone, "the clock of a dock", self._take_turns)

    def enters(self, visit: Tried, child: Child) -> None:
        """A suspect was let in."""
        self._let_in.add(visit)
        if self._is_without_innocents(child):
            self._on_trial = visit
            self._vain_sessions = 0
            self._nursery.start_soon(tending.alone, "the clock of a trial", self._adjourn, visit)

    def tries(self, visit: Tried) -> bool:
        """Is it on trial at this moment?"""
        return self._on_trial is visit

    def leaves(self, visit: Tried) -> None:
        """It is gone, whoever it was."""
        self._let_in.discard(visit)
        if self._on_trial is visit:
            self._on_trial = None
            self._trial.cancel()

    @property
    def _is_in_vain(self) -> bool:
        return self._vain_sessions >= VAIN_SESSIONS

    def _is_without_innocents(self, child: Child) -> bool:
        return child.users == sum(one.child is child for one in self._let_in)

    async def _adjourn(self, visit: Tried) -> None:
        """When there are many, each has less time."""
        if self._on_trial is not visit:
            return  # it has left before this clock began to run
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

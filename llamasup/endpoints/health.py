"""How well an instance elsewhere is, by what questions and requests meet. Pure: now is an argument.

A refused connection or a `503 Loading model` says when the instance can work again: as soon as it
answers a question. A request that got no answer says that questions prove nothing: such an instance
gets one request as a trial, and the others only when that one is answered. What a client does to
its own request (it leaves) says nothing at all.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from attrs import define


class Condition(Enum):
    """What is known of an instance."""

    UNKNOWN = "not asked yet"
    HEALTHY = "healthy"
    LOADING = "loading"
    UNREACHABLE = "unreachable"
    REFUSING = "refusing"
    """It answers, but not what it should: a wrong key, an error, no model."""

    @property
    def is_good(self) -> bool:
        """Does it serve?"""
        return self is Condition.HEALTHY


WELL_FOR: Final = 10.0
"""Seconds for which an instance that has answered is not asked how it is."""

_QUICK: Final = 0.2
_SOON: Final = 0.7
"""Seconds between two questions to an instance that loads or cannot be reached: it should be used
within a second of being ready. Such a question costs 0.2 ms."""

_SELDOM: Final = 30.0
_FIRST_REST: Final = 1.0
_TRIAL: Final = 10.0
"""Seconds after which a trial that is not answered yet counts as no failure: long prompts take as
long."""


@define
class Health:
    """One instance's health."""

    condition: Condition = Condition.UNKNOWN
    why: str = ""
    since: float = -math.inf
    _failures: int = 0
    """In a row, met by requests."""

    _questions: int = 0
    """In a row, without the answer that was hoped for."""

    _rests_until: float = -math.inf
    _trial_until: float = -math.inf

    def capacity(self, now: float) -> float:
        """How many requests it may have at once, whatever room it has: all, one as a trial, or
        none."""
        if self.condition is not Condition.HEALTHY or now < self._rests_until:
            return 0
        return 1 if self._failures and now < self._trial_until else math.inf

    def opens_at(self, now: float) -> float:
        """When `capacity` grows by itself; infinity if it does not."""
        if self.condition is not Condition.HEALTHY:
            return math.inf
        later = [time for time in (self._rests_until, self._trial_until) if time > now]
        return min(later, default=math.inf)

    def answered(self, now: float) -> bool:
        """It has answered a question as it should. True if that is news."""
        self._questions = 0
        return self._become(Condition.HEALTHY, "", now)

    def served(self, now: float) -> bool:
        """It has begun to answer a request. True if that is news."""
        is_news = self._failures > 0
        self._failures = 0
        self._rests_until = self._trial_until = -math.inf
        return self.answered(now) or is_news

    def loading(self, now: float) -> bool:
        """It says that it loads its model. True if that is news."""
        self._questions += 1
        return self._become(Condition.LOADING, "", now)

    def unreachable(self, why: str, now: float) -> bool:
        """No connection, or no answer to a question. True if that is news."""
        self._questions += 1
        return self._become(Condition.UNREACHABLE, why, now)

    def refused(self, why: str, now: float) -> bool:
        """Its answer to a question was not what it should be. True if that is news."""
        self._questions += 1
        return self._become(Condition.REFUSING, why, now)

    def failed(self, why: str, now: float, chance: float) -> bool:
        """A request got no answer. It rests for 1, 2, 4 … 30 s, and is tried with one request then.

        Requests that it had at the same time are lost with it, and count once. `chance` from 0 to 1
        spreads the rest. True if the condition changes.
        """
        self._rest(_FIRST_REST, now, chance)
        return self._become(Condition.UNREACHABLE, why, now)

    def loads(self, now: float, chance: float) -> bool:
        """It told a request that it still loads its model. As it may answer questions at the same
        time, it rests as after a failure, but from 0.2 s on. True if the condition changes."""
        self._rest(_QUICK, now, chance)
        return self.loading(now)

    def _rest(self, first: float, now: float, chance: float) -> None:
        if self._failures and now < self._rests_until:
            return
        rest = _doubled(first, self._failures) * (0.75 + chance / 2)
        self._failures += 1
        self._rests_until = now + rest
        self._trial_until = now + rest + _TRIAL

    def turned_away(self, seconds: float, now: float) -> None:
        """It has no room for a request, and says to come again after so many seconds."""
        self._rests_until = max(self._rests_until, now + min(seconds, _SELDOM))

    def pause(self, chance: float) -> float:
        """Seconds until it should be asked again how it is; `chance` from 0 to 1 spreads that."""
        spread = 0.75 + chance / 2
        if self.condition is Condition.HEALTHY:
            return WELL_FOR * spread
        if self.condition is Condition.REFUSING:
            return _doubled(_FIRST_REST, self._questions) * spread
        return (_QUICK if self._questions < 10 else _SOON) * spread

    def _become(self, condition: Condition, why: str, now: float) -> bool:
        is_news = condition is not self.condition
        if is_news:
            self.since = now
        self.condition, self.why = condition, why
        return is_news


def _doubled(first: float, times: int) -> float:
    return min(_SELDOM, first * 2.0 ** min(times, 10))

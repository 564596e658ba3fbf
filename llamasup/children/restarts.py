"""When a model may be started again after its child died, or why not. Pure: now is an argument.

After the first death the next child starts at once, then after 1 s, then 2, 4 … 60 s. Once a child
was ready for ten minutes, earlier deaths are forgotten, however it ended. The model is given up
after five failed starts in a row, or after one that can never succeed (wrong flags, a broken file):
until one of its files, the engine or the configuration changes, or the operator restarts it.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

from llamasup.engine.failures import Kind

HEALTHY: Final = 600.0
LONGEST_PAUSE: Final = 60.0
MOST_FAILED_STARTS: Final = 5

_BREATH: Final = 1.0
"""Seconds before the next try, though a change allows one: a file that is being copied changes all
the time."""

_DOUBLINGS: Final = 6
"""So many doublings lead to the longest pause. A model may die so often that 2.0**deaths would
overflow."""

_HOPELESS: Final = frozenset(
    {
        Kind.BAD_FLAG,
        Kind.BAD_MODEL_FILE,
        Kind.ENGINE_UNUSABLE,
        Kind.MISSING_FILE,
        Kind.UNKNOWN_ARCHITECTURE,
    }
)


@frozen
class Record:
    """How a model's children have fared since they were last well."""

    deaths: int = 0
    failed_starts: int = 0
    not_before: float = 0.0
    given_up: bool = False

    def wait(self, now: float) -> float:
        """Seconds that the next start still has to wait."""
        return max(self.not_before - now, 0.0)


def after_success(record: Record) -> Record:
    """A child is ready: earlier failed starts do not count any more."""
    return evolve(record, failed_starts=0)


def after_life(record: Record, ready_for: float) -> Record:
    """A child that was ready for so many seconds is gone, however it ended."""
    return Record() if ready_for >= HEALTHY else record


def after_death(record: Record, now: float, ready_for: float, jitter: float) -> Record:
    """A child that was ready for so many seconds died. `jitter` is random, from 0 to 1."""
    return _delayed(after_life(record, ready_for), now, jitter)


def after_verdict(record: Record, deaths: int) -> Record:
    """This many of the counted deaths were caused by a request, and not by the model."""
    return evolve(record, deaths=max(record.deaths - deaths, 0))


def after_change(record: Record) -> Record:
    """The reason for giving the model up may have changed."""
    return Record(not_before=record.not_before)


def after_failed_start(record: Record, now: float, kind: Kind, jitter: float) -> Record:
    """A child died before it was ready. `jitter` is random, from 0 to 1."""
    if kind in (Kind.SHORTAGE, Kind.REMOTE):
        return _delayed(record, now, jitter)  # this says nothing about the model, however often
    if kind is Kind.OUT_OF_MEMORY:
        # Other models may leave more memory later, so it is tried again, but not all the time.
        return evolve(record, not_before=now + LONGEST_PAUSE)
    failed = evolve(record, failed_starts=record.failed_starts + 1)
    if kind in _HOPELESS or failed.failed_starts >= MOST_FAILED_STARTS:
        return evolve(failed, given_up=True, not_before=now + _BREATH)
    return _delayed(failed, now, jitter)


def after_room(record: Record, now: float) -> Record:
    """Memory that other models held is free: there is nothing more to wait for."""
    return evolve(record, not_before=min(record.not_before, now))


def _delayed(record: Record, now: float, jitter: float) -> Record:
    doublings = min(record.deaths - 1, _DOUBLINGS)
    pause = min(2.0**doublings, LONGEST_PAUSE) if record.deaths else 0.0
    pause *= 0.75 + jitter / 2
    return evolve(record, deaths=record.deaths + 1, not_before=now + pause)

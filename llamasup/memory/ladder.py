"""The ladder: the ways to launch a model, best first, and where on it to begin. Pure.

llamasup learns only when memory runs out: the next load begins with the rung that held after that,
or lower. A rung that was passed over for lack of room says nothing about the next time. The next
higher rung is tried again when more memory is free than was then, and an interval has passed:
otherwise every start would repeat the same failure. A rung that ran out while other programs held
memory is tried again as soon as they are gone, and every rung is after a week.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeVar

from attrs import evolve, frozen

from llamasup.config.schema import ModelSettings, RungSettings

T = TypeVar("T", int, str)

_WEEK: Final = 7 * 86400.0
_NOTABLY: Final = 1 + 1 / 16
"""If this much more is free, another program has ended. A smaller difference may be chance."""


@frozen
class Rung:
    """One way to launch a model. A value of None leaves the choice to the engine."""

    context: int | None = None
    cache_type: str | None = None
    gpu_layers: int | None = None

    def __str__(self) -> str:
        parts = (
            ("context", self.context),
            ("cache type", self.cache_type),
            ("GPU layers", self.gpu_layers),
        )
        return ", ".join(f"{name} {value}" for name, value in parts if value is not None) or "as is"


@frozen
class Learned:
    """The rung that held after another one had run out of memory, and the circumstances: seconds
    since the epoch, and free bytes."""

    rung: Rung
    at: float
    free: int
    crowded: bool = False
    """Did other models hold memory then, which could not be unloaded?"""


def ladder(
    settings: ModelSettings, contexts: Sequence[int], trained: int | None = None
) -> tuple[Rung, ...]:
    """The rungs of a model: its own if it has any, else the contexts below its first one.

    If llamasup chooses, no slot gets more context than the model was trained on. What the operator
    wrote stays as it is.
    """
    top = _rung(settings, Rung())
    sizes: Sequence[int]
    if settings.ladder:
        return tuple(_rung(own, top) for own in settings.ladder)
    if top.context is not None:
        sizes = [top.context, *(size for size in contexts if size < top.context)]
    else:
        sizes = _within(contexts, trained and trained * settings.parallel)
    return tuple(evolve(top, context=context) for context in sizes) or (top,)


def is_open(settings: ModelSettings) -> bool:
    """May llamasup choose how much context the model begins with?"""
    return settings.context_size == "auto" and not settings.ladder


def _within(contexts: Sequence[int], limit: int | None) -> Sequence[int]:
    if not limit or not contexts:
        return contexts
    return [size for size in contexts if size <= limit] or [limit]


def _rung(settings: ModelSettings | RungSettings, default: Rung) -> Rung:
    def chosen(value: T | Literal["auto"], otherwise: T | None) -> T | None:
        return otherwise if value == "auto" else value

    return Rung(
        context=chosen(settings.context_size, default.context),
        cache_type=chosen(settings.cache_type, default.cache_type),
        gpu_layers=chosen(settings.gpu_layers, default.gpu_layers),
    )


def highest(
    rungs: Sequence[Rung], learned: Learned | None, now: float, free: int, interval: float
) -> int:
    """The index of the highest rung to begin with, according to what was learned."""
    if learned is None or learned.rung not in rungs:
        return 0
    if learned.crowded and free > learned.free * _NOTABLY:
        return 0
    held = rungs.index(learned.rung)
    age = now - learned.at
    in_time = age >= interval and free > learned.free
    # If the clock was set back, the age is unknown.
    may_climb = in_time or age >= max(interval, _WEEK) or age < 0
    return max(held - 1, 0) if may_climb else held


def is_news(
    rungs: Sequence[Rung], learned: Learned | None, held: Rung, *, after_an_oom: bool
) -> bool:
    """Is it worth learning that this rung held? If not, what was learned stays, and ages."""
    if after_an_oom:
        return True
    if learned is None or learned.rung not in rungs:
        return False
    return rungs.index(held) < rungs.index(learned.rung)

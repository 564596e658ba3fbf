"""The ladder: the ways to launch a model, best first, and where on it to begin. Pure.

A rung that was learned (the one that held last time) is where the next load begins. One rung
higher is tried again when there is more free memory than there was then, and not before an
interval has passed: else every start would pay for the same failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from attrs import evolve, frozen

from llamasup.config.schema import ModelSettings, RungSettings

T = TypeVar("T", int, str)


@frozen
class Rung:
    """One way to launch a model. None leaves the choice to the engine."""

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
    """The rung that held, and the circumstances: seconds since the epoch, and free bytes."""

    rung: Rung
    at: float
    free: int


def ladder(
    settings: ModelSettings, contexts: Sequence[int], trained: int | None = None
) -> tuple[Rung, ...]:
    """The rungs of a model: its own where it has any, else the contexts below its first one.

    Where the choice is ours, no slot gets more context than the model was trained on. What the
    operator wrote stays as it is.
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
    """Is it left to us with how much context the model begins?"""
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


def begin(
    rungs: Sequence[Rung], learned: Learned | None, now: float, free: int, interval: float
) -> int | None:
    """The index of the rung to begin with, as far as experience tells; None if there is none."""
    if learned is None or learned.rung not in rungs:
        return None
    held = rungs.index(learned.rung)
    may_climb = now - learned.at >= interval and free > learned.free
    return max(held - 1, 0) if may_climb else held

"""Rungs: the ways to launch a model, best first."""

from __future__ import annotations

from attrs import frozen

from llamasup.config.schema import ModelSettings


@frozen
class Rung:
    """One way to launch a model. None leaves the choice to the engine."""

    context: int | None = None
    cache_type: str | None = None
    gpu_layers: int | None = None


def first_rung(settings: ModelSettings) -> Rung:
    """The rung that the configuration asks for."""
    return Rung(
        context=None if settings.context_size == "auto" else settings.context_size,
        cache_type=None if settings.cache_type == "auto" else settings.cache_type,
        gpu_layers=None if settings.gpu_layers == "auto" else settings.gpu_layers,
    )

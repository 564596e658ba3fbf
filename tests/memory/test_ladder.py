"""The first rung is what the configuration asks for, and nothing that it leaves to the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.config.schema import ModelSettings
from llamasup.memory.ladder import Rung, first_rung


@pytest.mark.parametrize(
    ("asked", "rung"),
    [
        ({}, Rung(None, None, None)),
        ({"context_size": 8192}, Rung(context=8192)),
        ({"cache_type": "q8_0"}, Rung(cache_type="q8_0")),
        ({"gpu_layers": 0}, Rung(gpu_layers=0)),
        ({"gpu_layers": -1}, Rung(gpu_layers=-1)),
        (
            {"context_size": 1, "cache_type": "f16", "gpu_layers": 20},
            Rung(context=1, cache_type="f16", gpu_layers=20),
        ),
    ],
)
def test_the_first_rung_is_what_the_model_asks_for(asked: dict[str, object], rung: Rung) -> None:
    assert first_rung(ModelSettings(path=Path("m.gguf"), **asked)) == rung  # type: ignore[arg-type]

"""The rungs of a model, and the one to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamasup.config.schema import ModelSettings, RungSettings
from llamasup.memory.ladder import Learned, Rung, begin, ladder

CONTEXTS = (32768, 16384, 8192)
RUNGS = [Rung(context) for context in CONTEXTS]
HOUR = 3600.0


def model(**settings: Any) -> ModelSettings:
    return ModelSettings(path=Path("m.gguf"), **settings)


@pytest.mark.parametrize(
    ("settings", "rungs"),
    [
        ({}, [Rung(32768), Rung(16384), Rung(8192)]),
        ({"context_size": 20000}, [Rung(20000), Rung(16384), Rung(8192)]),
        ({"context_size": 16384}, [Rung(16384), Rung(8192)]),
        ({"context_size": 100}, [Rung(100)]),
        (
            {"context_size": 8192, "cache_type": "q8_0", "gpu_layers": 20},
            [Rung(8192, "q8_0", 20)],
        ),
        (
            {
                "context_size": 32768,
                "gpu_layers": -1,
                "ladder": (
                    RungSettings(),
                    RungSettings(cache_type="q8_0"),
                    RungSettings(context_size=4096, gpu_layers=0),
                ),
            },
            [Rung(32768, None, -1), Rung(32768, "q8_0", -1), Rung(4096, None, 0)],
        ),
    ],
)
def test_the_rungs_follow_from_the_settings(settings: dict[str, Any], rungs: list[Rung]) -> None:
    assert list(ladder(model(**settings), CONTEXTS)) == rungs


def test_without_any_contexts_the_engine_chooses() -> None:
    assert ladder(model(), ()) == (Rung(),)


@pytest.mark.parametrize(
    ("learned", "begins_with"),
    [
        (None, 0),
        (Learned(Rung(32768), at=0, free=10), 0),
        (Learned(Rung(8192), at=0, free=10), 1),
        (Learned(Rung(8192), at=0, free=11), 2),
        (Learned(Rung(8192), at=1.5 * HOUR, free=10), 2),
        (Learned(Rung(999), at=0, free=10), 0),
    ],
    ids=[
        "nothing is known",
        "the best one held",
        "one higher, for time has passed and more memory is free",
        "not higher, for no more memory is free",
        "not higher, for it is too early",
        "what is known is of another ladder",
    ],
)
def test_a_load_begins_where_the_last_one_held(learned: Learned | None, begins_with: int) -> None:
    assert begin(RUNGS, learned, now=2 * HOUR, free=11, interval=HOUR) == begins_with


def test_a_rung_says_what_it_changes() -> None:
    assert str(Rung(8192, "q8_0", 20)) == "context 8192, cache type q8_0, GPU layers 20"
    assert str(Rung()) == "as is"

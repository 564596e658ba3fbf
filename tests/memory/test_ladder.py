"""The rungs of a model, and the one to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.schema import ModelSettings, RungSettings
from llamasup.memory.ladder import Learned, Rung, begin, is_open, ladder

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
    assert list(ladder(model(**settings), CONTEXTS, None)) == rungs


@pytest.mark.parametrize(
    ("settings", "trained", "sizes"),
    [
        ({}, 16384, [16384, 8192]),
        ({}, 20000, [16384, 8192]),
        ({"parallel": 2}, 16384, [32768, 16384, 8192]),
        ({"parallel": 3}, 4096, [8192]),
        ({}, 4096, [4096]),
        ({"parallel": 2}, 2048, [4096]),
        ({"context_size": 65536}, 4096, [65536, 32768, 16384, 8192]),
        ({"ladder": (RungSettings(context_size=65536),)}, 4096, [65536]),
    ],
    ids=str,
)
def test_no_slot_gets_more_context_than_the_model_was_trained_on_unless_told_so(
    settings: dict[str, Any], trained: int, sizes: list[int]
) -> None:
    assert [rung.context for rung in ladder(model(**settings), CONTEXTS, trained)] == sizes


@given(
    contexts=st.lists(st.integers(1, 1 << 20), min_size=1).map(lambda c: sorted(c, reverse=True)),
    trained=st.integers(1, 1 << 20),
    parallel=st.integers(1, 8),
)
def test_there_is_always_a_rung_and_none_beyond_what_the_model_was_trained_on(
    contexts: list[int], trained: int, parallel: int
) -> None:
    rungs = ladder(model(parallel=parallel), contexts, trained)
    assert rungs
    assert all(rung.context and rung.context <= trained * parallel for rung in rungs)


@pytest.mark.parametrize(
    ("settings", "is_ours"),
    [
        ({}, True),
        ({"context_size": 4096}, False),
        ({"ladder": (RungSettings(context_size=4096),)}, False),
    ],
    ids=str,
)
def test_what_the_operator_wrote_is_not_ours_to_choose(
    settings: dict[str, Any], is_ours: bool
) -> None:
    assert is_open(model(**settings)) is is_ours


def test_without_any_contexts_the_engine_chooses() -> None:
    assert ladder(model(), (), 4096) == (Rung(),)


@pytest.mark.parametrize(
    ("learned", "begins_with"),
    [
        (None, None),
        (Learned(Rung(32768), at=0, free=10), 0),
        (Learned(Rung(8192), at=0, free=10), 1),
        (Learned(Rung(8192), at=0, free=11), 2),
        (Learned(Rung(8192), at=1.5 * HOUR, free=10), 2),
        (Learned(Rung(999), at=0, free=10), None),
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
def test_a_load_begins_where_the_last_one_held(
    learned: Learned | None, begins_with: int | None
) -> None:
    assert begin(RUNGS, learned, now=2 * HOUR, free=11, interval=HOUR) == begins_with


def test_a_rung_says_what_it_changes() -> None:
    assert str(Rung(8192, "q8_0", 20)) == "context 8192, cache type q8_0, GPU layers 20"
    assert str(Rung()) == "as is"

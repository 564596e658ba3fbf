"""The rungs of a model, and the one to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.schema import ModelSettings, RungSettings
from llamasup.memory.ladder import Learned, Rung, highest, is_news, is_open, ladder

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


WEEK = 7 * 24 * HOUR
NOW = 2 * HOUR


@pytest.mark.parametrize(
    ("learned", "begins_with"),
    [
        (None, 0),
        (Learned(Rung(32768), at=0, free=10), 0),
        (Learned(Rung(8192), at=0, free=10), 1),
        (Learned(Rung(8192), at=0, free=11), 2),
        (Learned(Rung(8192), at=1.5 * HOUR, free=10), 2),
        (Learned(Rung(8192), at=NOW - WEEK, free=11), 1),
        (Learned(Rung(8192), at=NOW + 1, free=11), 1),
        (Learned(Rung(8192), at=NOW, free=10, crowded=True), 0),
        (Learned(Rung(8192), at=NOW, free=11, crowded=True), 2),
        (Learned(Rung(8192), at=0, free=10, crowded=False), 1),
        (Learned(Rung(999), at=0, free=10), 0),
    ],
    ids=[
        "nothing ever ran out",
        "the best one held",
        "one higher, for time has passed and more memory is free",
        "not higher, for no more memory is free",
        "not higher, for it is too early",
        "one higher after a week, whatever is free",
        "one higher, for the clock was set back",
        "anew, for those who held the memory are gone",
        "not anew, for they are still there",
        "not anew, for nobody else was there",
        "what is known is of another ladder",
    ],
)
def test_a_load_begins_no_higher_than_what_ran_out_of_memory(
    learned: Learned | None, begins_with: int
) -> None:
    assert highest(RUNGS, learned, now=NOW, free=11, interval=HOUR) == begins_with


@pytest.mark.parametrize(
    ("learned", "held", "after_an_oom", "news"),
    [
        (None, 0, False, False),
        (None, 1, False, False),
        (None, 1, True, True),
        (1, 1, False, False),
        (1, 1, True, True),
        (1, 0, False, True),
        (1, 2, False, False),
        (1, 2, True, True),
    ],
    ids=[
        "nothing ran out",
        "there was too little room, and nothing ran out",
        "something ran out",
        "as ever: what was learned goes on to age",
        "a climb that failed is not tried again at once",
        "a climb that succeeded",
        "there was too little room for what once held",
        "what once held has run out",
    ],
)
def test_only_what_ran_out_and_climbs_that_succeed_are_news(
    learned: int | None, held: int, after_an_oom: bool, news: bool
) -> None:
    known = None if learned is None else Learned(RUNGS[learned], at=0, free=0)
    assert is_news(RUNGS, known, RUNGS[held], after_an_oom=after_an_oom) is news


@given(fits=st.integers(0, 2), visits=st.lists(st.floats(1, 4 * HOUR), min_size=30, max_size=60))
def test_however_often_it_is_loaded_a_model_comes_back_up_when_there_is_more_memory(
    fits: int, visits: list[float]
) -> None:
    """What ran out at first fits later: after so many intervals it is tried."""
    learned, now = Learned(RUNGS[2], at=0.0, free=10), 0.0
    for pause in visits:
        now += pause
        place = highest(RUNGS, learned, now, 11, HOUR)
        ran_out = place < fits
        held = max(place, fits)
        if is_news(RUNGS, learned, RUNGS[held], after_an_oom=ran_out):
            learned = Learned(RUNGS[held], now, 10)
    assert RUNGS.index(learned.rung) == fits or now < 2 * HOUR + 2 * 4 * HOUR


def test_a_rung_says_what_it_changes() -> None:
    assert str(Rung(8192, "q8_0", 20)) == "context 8192, cache type q8_0, GPU layers 20"
    assert str(Rung()) == "as is"

"""A measurement refines what engine or formula say, within bounds and for a while."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.memory.measured import counted, is_fresh

GIB = 1 << 30
WEEK = 7 * 86400.0


@pytest.mark.parametrize(
    ("held", "word", "cache", "needs"),
    [
        (10.5, 10, 0, 10.5),
        (9.0, 10, 2, 9.0),
        (11.5, 10, 2, 10),
        (12.5, 10, 2, 10.5),
        (0.002, 10, 0, 5),
        (90, 10, 0, 21),
        (90, None, 2, 90),
    ],
    ids=[
        "a bit more than was said",
        "a bit less than was said",
        "as was said, and prompts",
        "more than prompts explain",
        "the shell around the engine",
        "more than anything explains",
        "nobody has said anything",
    ],
)
def test_a_measurement_counts_as_far_as_it_is_explained(
    held: float, word: float | None, cache: float, needs: float
) -> None:
    said = None if word is None else int(word * GIB)
    assert counted(int(held * GIB), said, int(cache * GIB)) == int(needs * GIB)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_what_counts_is_never_far_from_what_was_said(held: int, word: int, cache: int) -> None:
    needs = counted(held, word, cache)
    assert word // 2 <= needs <= word * 2 + GIB
    assert needs >= min(held, word // 2)
    assert counted(held + 1, word, cache) >= needs


@pytest.mark.parametrize(
    ("at", "counts"), [(0.0, False), (1.0, True), (WEEK, True), (WEEK + 1, False)]
)
def test_it_counts_for_a_week_and_not_if_it_is_of_the_future(at: float, counts: bool) -> None:
    assert is_fresh(at, now=WEEK) is counts

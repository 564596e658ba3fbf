"""Which children show signs of life, and which do not, as tables."""

from __future__ import annotations

import pytest

from llamasup.children.signs import LEAST_EFFORT, LONGEST_BATCH, Signs

PATIENCE = 100.0
MUTE = None
FORBIDDEN = (401, b"an API key is needed")
SLOTS = (200, b"10 tokens")
MORE = (200, b"20 tokens")
IDLE, BUSY, UNKNOWN = 0.0, 60.0, None
Answers = list[tuple[int, bytes] | None]


def signs_after(answers: Answers, effort: float | None) -> tuple[Signs, float]:
    """Nothing is heard of it, and it is asked once in its patience; what was seen, and when."""
    signs, now = Signs.since(0.0), 0.0
    signs.computed(now, None if effort is None else 0.0)
    for number, answer in enumerate(answers, start=1):
        now = number * PATIENCE
        signs.computed(now, None if effort is None else number * effort)
        signs.told(now, answer)
    return signs, now


@pytest.mark.parametrize(
    ("answers", "effort", "hangs"),
    [
        ([MUTE], IDLE, True),
        ([MUTE], BUSY, False),
        ([MUTE], UNKNOWN, True),
        ([FORBIDDEN], IDLE, True),
        ([FORBIDDEN, FORBIDDEN], BUSY, False),
        ([FORBIDDEN, FORBIDDEN], UNKNOWN, False),
        ([SLOTS], IDLE, False),
        ([SLOTS, SLOTS], IDLE, True),
        ([SLOTS, SLOTS], BUSY, False),
        ([SLOTS, SLOTS], UNKNOWN, True),
        ([SLOTS, MORE], IDLE, False),
        ([SLOTS, MORE], UNKNOWN, False),
        ([SLOTS, MORE, MORE], IDLE, True),
        ([SLOTS, MUTE], IDLE, True),
    ],
)
def test_a_child_without_a_sign_of_life_hangs(
    answers: Answers, effort: float | None, hangs: bool
) -> None:
    signs, now = signs_after(answers, effort)
    assert (signs.verdict(now, PATIENCE) is not None) is hangs


@pytest.mark.parametrize("answer", [MUTE, FORBIDDEN, SLOTS])
def test_a_child_that_computes_without_an_end_is_ended(answer: tuple[int, bytes] | None) -> None:
    signs, now = signs_after([answer] * LONGEST_BATCH, BUSY)
    assert signs.verdict(now, PATIENCE) == "it did not move for 1200 s, though it was busy"


def test_to_be_heard_of_is_the_best_sign() -> None:
    signs, now = signs_after([SLOTS, MUTE], IDLE)
    signs.heard(now - 1)
    assert signs.verdict(now, PATIENCE) is None


def test_slots_that_told_something_before_the_last_progress_are_compared_with_nothing() -> None:
    signs, now = signs_after([SLOTS], IDLE)
    signs.heard(now)
    signs.told(2 * PATIENCE, SLOTS)
    assert signs.verdict(2 * PATIENCE, PATIENCE) is None


def test_a_little_computing_is_that_of_a_child_that_waits_for_nothing() -> None:
    signs, now = signs_after([MUTE], PATIENCE * LEAST_EFFORT / 2)
    assert signs.verdict(now, PATIENCE) is not None


def test_a_process_of_its_own_that_is_gone_has_done_something() -> None:
    signs = Signs.since(0.0)
    signs.computed(0.0, 50.0)
    signs.computed(PATIENCE, 10.0)
    signs.told(PATIENCE, MUTE)
    assert signs.verdict(PATIENCE, PATIENCE) is None

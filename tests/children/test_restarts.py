"""When a model may be started again, as a table and as properties."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamasup.children.restarts import (
    HEALTHY,
    LONGEST_PAUSE,
    MOST_FAILED_STARTS,
    Record,
    after_death,
    after_failed_start,
    after_life,
    after_success,
    after_verdict,
)
from llamasup.engine.failures import Kind

HALF = 0.5  # the jitter that changes nothing


def test_the_first_death_is_answered_at_once_and_the_next_ones_ever_later() -> None:
    record, waits = Record(), []
    for _ in range(9):
        record = after_death(record, now=100.0, ready_for=1.0, jitter=HALF)
        waits.append(record.wait(100.0))
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_ten_healthy_minutes_wipe_the_slate_clean() -> None:
    record = Record()
    for _ in range(6):
        record = after_death(record, now=0.0, ready_for=HEALTHY - 1, jitter=HALF)
    assert record.wait(0.0) > 0
    assert after_death(record, now=0.0, ready_for=HEALTHY, jitter=HALF).wait(0.0) == 0


def test_ten_healthy_minutes_count_however_they_end() -> None:
    record = Record(deaths=6)
    assert after_life(record, ready_for=HEALTHY - 1) == record
    assert after_life(record, ready_for=HEALTHY) == Record()


@given(st.integers(0, 10**9), st.floats(0, 1), st.booleans())
@example(1, HALF, True)
@example(1025, HALF, True)
@example(1025, HALF, False)
@example(10**9, HALF, True)
def test_no_number_of_deaths_is_too_large(deaths: int, jitter: float, was_ready: bool) -> None:
    before = Record(deaths=deaths)
    if was_ready:
        after = after_death(before, now=0.0, ready_for=1.0, jitter=jitter)
    else:
        after = after_failed_start(before, now=0.0, kind=Kind.SHORTAGE, jitter=jitter)
    assert after.deaths == deaths + 1
    assert 0 <= after.wait(0.0) <= LONGEST_PAUSE * 1.25


def test_what_was_a_requests_doing_is_not_held_against_the_model() -> None:
    assert after_verdict(Record(deaths=5), 2) == Record(deaths=3)
    assert after_verdict(Record(deaths=1), 2) == Record()


def test_five_starts_that_fail_in_a_row_are_enough() -> None:
    record = Record()
    for attempt in range(MOST_FAILED_STARTS):
        assert not record.given_up, attempt
        record = after_failed_start(record, now=0.0, kind=Kind.CRASH, jitter=HALF)
    assert record.given_up


def test_what_we_lacked_is_no_verdict_but_no_storm_follows_either() -> None:
    record, waits = Record(), []
    for _ in range(3 * MOST_FAILED_STARTS):
        record = after_failed_start(record, now=0.0, kind=Kind.SHORTAGE, jitter=HALF)
        waits.append(record.wait(0.0))
    assert not record.given_up
    assert waits[:4] == [0, 1, 2, 4]
    assert waits[-1] == LONGEST_PAUSE


def test_a_start_that_succeeds_in_between_is_a_new_beginning_for_the_count() -> None:
    record = Record()
    for _ in range(3 * MOST_FAILED_STARTS):
        record = after_failed_start(record, now=0.0, kind=Kind.CRASH, jitter=HALF)
        record = after_success(record)
    assert not record.given_up


@pytest.mark.parametrize(
    "kind",
    [
        Kind.BAD_FLAG,
        Kind.BAD_MODEL_FILE,
        Kind.ENGINE_UNUSABLE,
        Kind.MISSING_FILE,
        Kind.UNKNOWN_ARCHITECTURE,
    ],
)
def test_what_cannot_succeed_is_not_tried_twice(kind: Kind) -> None:
    assert after_failed_start(Record(), now=0.0, kind=kind, jitter=HALF).given_up


def test_want_of_memory_is_never_given_up_but_makes_no_storm() -> None:
    record = Record()
    for _ in range(20):
        record = after_failed_start(record, now=50.0, kind=Kind.OUT_OF_MEMORY, jitter=HALF)
        assert not record.given_up
        assert record.wait(50.0) >= 10
    accident = after_failed_start(record, now=200.0, kind=Kind.CRASH, jitter=HALF)
    assert not accident.given_up


@given(
    st.lists(st.tuples(st.sampled_from(Kind), st.booleans(), st.floats(0, 1), st.floats(0, 2000))),
)
def test_no_history_leads_to_more_than_the_longest_pause(
    history: list[tuple[Kind, bool, float, float]],
) -> None:
    record, now = Record(), 0.0
    for kind, was_ready, jitter, lived in history:
        now += lived
        if was_ready:
            record = after_death(record, now, lived, jitter)
        else:
            record = after_failed_start(record, now, kind, jitter)
        assert 0 <= record.wait(now) <= LONGEST_PAUSE * 1.25


@given(st.floats(0, 1))
def test_jitter_moves_a_pause_by_a_quarter_at_most(jitter: float) -> None:
    record = after_death(Record(deaths=5), now=0.0, ready_for=1.0, jitter=jitter)
    assert 16 * 0.75 <= record.wait(0.0) <= 16 * 1.25

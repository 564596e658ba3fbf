"""Health: what each sign means, and when an instance gets requests again."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.endpoints.health import Condition, Health

SIGNS: dict[str, Callable[[Health, float], object]] = {
    "answered": lambda health, now: health.answered(now),
    "served": lambda health, now: health.served(now),
    "loading": lambda health, now: health.loading(now),
    "unreachable": lambda health, now: health.unreachable("refused", now),
    "refused": lambda health, now: health.refused("401", now),
    "failed": lambda health, now: health.failed("reset", now, 0.5),
    "loads": lambda health, now: health.loads(now, 0.5),
    "turned away": lambda health, now: health.turned_away(3, now),
}


def after(*signs: str) -> Health:
    health = Health()
    for now, sign in enumerate(signs):
        SIGNS[sign](health, float(now))
    return health


@pytest.mark.parametrize(
    ("signs", "condition", "capacity"),
    [
        ((), Condition.UNKNOWN, 0),
        (("answered",), Condition.HEALTHY, math.inf),
        (("answered", "loading"), Condition.LOADING, 0),
        (("answered", "unreachable"), Condition.UNREACHABLE, 0),
        (("unreachable", "answered"), Condition.HEALTHY, math.inf),
        (("loading", "answered"), Condition.HEALTHY, math.inf),
        (("answered", "refused"), Condition.REFUSING, 0),
        (("answered", "failed"), Condition.UNREACHABLE, 0),
        (("answered", "failed", "answered"), Condition.HEALTHY, 1),
        (("answered", "failed", "answered", "served"), Condition.HEALTHY, math.inf),
        (("answered", "turned away"), Condition.HEALTHY, 0),
    ],
)
def test_signs_decide_how_many_requests_it_gets(
    signs: tuple[str, ...], condition: Condition, capacity: float
) -> None:
    health = after(*signs)
    assert (health.condition, health.capacity(len(signs))) == (condition, capacity)


def test_an_instance_that_failed_rests_before_its_trial_and_the_trial_has_an_end() -> None:
    health = after("answered", "failed", "failed")
    health.answered(2.1)
    assert health.capacity(2.2) == 0
    assert health.opens_at(2.2) == 4.0
    assert health.capacity(4.0) == 1
    assert health.opens_at(4.0) == 14.0
    assert health.capacity(14.0) == math.inf


def test_an_instance_that_turned_requests_away_is_looked_at_when_its_rest_ends() -> None:
    health = after("answered", "turned away")
    assert (health.opens_at(2), health.opens_at(4)) == (4, math.inf)


def test_requests_that_are_lost_together_count_once() -> None:
    health = Health()
    for at in (0, 0.1, 0.2, 0.9):
        health.failed("reset", at, 0.5)
    health.answered(1)
    assert health.capacity(1) == 1


def test_one_that_says_to_requests_that_it_loads_gets_them_seldom_though_it_answers() -> None:
    health, now, rests = Health(), 0.0, []
    for _ in range(9):
        assert health.loads(now, 0.5)
        health.answered(now)
        rests.append(health.opens_at(now) - now)
        now = health.opens_at(now)
    assert rests == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30])


def test_each_failure_makes_the_rest_longer_up_to_a_bound() -> None:
    health, rests = Health(), []
    for now in range(0, 1000, 100):
        health.failed("reset", now, 0.5)
        health.answered(now)
        rests.append(health.opens_at(now) - now)
    assert rests == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]


@given(st.lists(st.sampled_from(sorted(SIGNS))), st.floats(0, 1))
def test_an_instance_that_loads_or_is_away_is_asked_within_a_second(
    signs: list[str], chance: float
) -> None:
    health = after(*signs)
    if health.condition in (Condition.UNKNOWN, Condition.LOADING, Condition.UNREACHABLE):
        assert health.pause(chance) < 1
    assert 0 < health.pause(chance) <= 30 * 1.25


@given(st.lists(st.sampled_from(sorted(SIGNS))))
def test_an_answered_request_opens_it_wholly_whatever_was_before(signs: list[str]) -> None:
    health = after(*signs, "served")
    assert health.capacity(len(signs)) == math.inf


@given(st.lists(st.sampled_from(sorted(SIGNS))))
def test_news_is_told_exactly_when_the_condition_changes(signs: list[str]) -> None:
    health = Health()
    for now, sign in enumerate(signs):
        before = health.condition
        if SIGNS[sign](health, float(now)) is False:
            assert health.condition is before
        if health.condition is not before:
            assert health.since == now

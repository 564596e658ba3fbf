"""What a key uses flows back in a minute; nothing that clocks or clients do gives it more."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.access.keyring import Key
from llamasup.access.limits import Bucket, Limits
from llamasup.config.schema import KeySettings
from llamasup.errors import RateLimited


def key(name: str = "alice", **settings: int) -> Key:
    return Key(name, KeySettings(**settings))  # type: ignore[arg-type]


def entered(limits: Limits, of: Key, now: float, times: int) -> int:
    """How many of so many tries succeed."""
    count = 0
    for _ in range(times):
        try:
            limits.enter(of, now)
        except RateLimited:
            continue
        limits.leave(of)
        count += 1
    return count


# --- requests ---


def test_a_minute_s_requests_may_come_at_once_and_then_flow_back_evenly() -> None:
    limits, alice = Limits(), key(requests_per_minute=6)
    assert entered(limits, alice, 100, 10) == 6
    assert entered(limits, alice, 109.9, 1) == 0
    assert entered(limits, alice, 110, 2) == 1
    assert entered(limits, alice, 1e9, 10) == 6


def test_a_refusal_says_when_to_come_again_and_coming_then_succeeds() -> None:
    limits, alice = Limits(), key(requests_per_minute=6)
    entered(limits, alice, 0, 6)
    with pytest.raises(RateLimited, match="6 requests a minute; try again in 8s") as refused:
        limits.enter(alice, 2)
    assert refused.value.retry_after == pytest.approx(8)
    assert entered(limits, alice, 2 + (refused.value.retry_after or 0), 1) == 1


def test_what_is_refused_uses_nothing_up() -> None:
    limits, alice = Limits(), key(requests_per_minute=6)
    entered(limits, alice, 0, 1000)
    assert entered(limits, alice, 10, 2) == 1


@given(
    most=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=40),
)
def test_in_no_minute_can_more_than_twice_the_limit_be_used(
    most: int, steps: list[tuple[float, int]]
) -> None:
    """A full bucket, and what flows back meanwhile: so it is with every bucket."""
    limits, alice, now, used = Limits(), key(requests_per_minute=most), 0.0, []
    for pause, times in steps:
        now += pause
        used.append((now, entered(limits, alice, now, times)))
    for begin, _ in used:
        within = sum(count for at, count in used if begin <= at < begin + 60)
        assert within <= 2 * most


@given(
    most=st.integers(1, 100_000),
    deeds=st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e6)), min_size=1, max_size=30),
    now=st.floats(0, 1e9),
)
def test_no_clock_makes_more_than_all_of_it(
    most: int, deeds: list[tuple[float, float]], now: float
) -> None:
    bucket = Bucket()
    for at, amount in deeds:
        bucket.take(amount, most, at)
        assert bucket.left(most, at) <= most
    assert bucket.left(most, now) <= most
    wait = bucket.seconds_until(1, most, now)
    assert wait >= 0
    assert bucket.left(most, now + wait) >= 1 - 1e-3 * most


# --- tokens ---


def test_tokens_are_taken_after_the_answer_and_a_debt_flows_back() -> None:
    limits, alice = Limits(), key(tokens_per_minute=600)
    limits.enter(alice, 0)
    limits.charge(alice, 900, 0)  # the answer is not cut
    with pytest.raises(RateLimited, match="600 tokens a minute; try again in 31s"):
        limits.enter(alice, 0)
    assert entered(limits, alice, 30.0, 1) == 0
    assert entered(limits, alice, 30.2, 1) == 1


def test_where_no_limit_is_set_nothing_is_counted() -> None:
    limits, alice = Limits(), key()
    limits.charge(alice, 10**9, 0)
    assert entered(limits, alice, 0, 1000) == 1000
    assert limits.lines(alice, 0) == []


# --- at once ---


def test_requests_at_once_are_counted_until_they_leave() -> None:
    limits, alice = Limits(), key(at_once=2)
    limits.enter(alice, 0)
    limits.enter(alice, 0)
    with pytest.raises(RateLimited, match="has 2 requests at once"):
        limits.enter(alice, 0)
    limits.enter(key("bob", at_once=2), 0)
    limits.leave(alice)
    limits.enter(alice, 0)


def test_a_key_that_was_taken_away_is_forgotten_when_its_last_request_leaves() -> None:
    limits, alice, bob = Limits(), key(at_once=1), key("bob", requests_per_minute=1)
    limits.enter(alice, 0)
    entered(limits, bob, 0, 1)
    limits.keep({})
    with pytest.raises(RateLimited):
        limits.enter(alice, 0)
    assert entered(limits, bob, 0, 1) == 1
    limits.leave(alice)
    limits.enter(alice, 0)


deeds = st.one_of(
    st.tuples(st.just("comes"), st.sampled_from("ab")),
    st.tuples(st.just("leaves"), st.integers(0, 9)),
    st.tuples(st.just("keeps"), st.sets(st.sampled_from("ab"))),
)


@given(st.lists(deeds, max_size=60), st.integers(1, 3))
def test_whatever_keys_come_and_go_no_place_is_lost_or_given_twice(
    deeds: list[tuple[str, object]], most: int
) -> None:
    limits, inside = Limits(), list[Key]()
    for deed, what in deeds:
        if deed == "comes":
            own = key(str(what), at_once=most)
            taken = sum(other.name == own.name for other in inside)
            try:
                limits.enter(own, 0)
            except RateLimited:
                assert taken == most
            else:
                assert taken < most
                inside.append(own)
        elif deed == "leaves" and inside:
            limits.leave(inside.pop(int(str(what)) % len(inside)))
        elif deed == "keeps":
            limits.keep({name: KeySettings() for name in str(what)})
    for own in inside:
        limits.leave(own)
    limits.keep({})
    for name in "ab":
        assert entered(limits, key(name, at_once=1), 0, 1) == 1


def test_a_new_limit_counts_at_once_and_forgets_nothing() -> None:
    limits = Limits()
    assert entered(limits, key(requests_per_minute=10), 0, 10) == 10
    limits.keep({"alice": KeySettings(requests_per_minute=100)})
    assert entered(limits, key(requests_per_minute=100), 0, 10) == 0
    assert entered(limits, key(requests_per_minute=100), 30, 100) == 50


# --- headers ---


def test_the_headers_are_openai_s() -> None:
    limits, alice = Limits(), key(requests_per_minute=60, tokens_per_minute=6000)
    limits.enter(alice, 0)
    limits.charge(alice, 12_345, 0)
    assert b"\r\n".join(limits.lines(alice, 0)).split(b"\r\n") == [
        b"x-ratelimit-limit-requests: 60",
        b"x-ratelimit-remaining-requests: 59",
        b"x-ratelimit-reset-requests: 1s",
        b"x-ratelimit-limit-tokens: 6000",
        b"x-ratelimit-remaining-tokens: 0",
        b"x-ratelimit-reset-tokens: 2m4s",
    ]


@pytest.mark.parametrize(
    ("charged", "reset"),
    [(0, b"0ms"), (1, b"1ms"), (500, b"500ms"), (1000, b"1s"), (360_000, b"6m0s")],
)
def test_a_duration_is_written_as_openai_writes_it(charged: int, reset: bytes) -> None:
    limits, alice = Limits(), key(tokens_per_minute=60_000)
    limits.charge(alice, charged, 0)
    for now, expected in ((0, reset), (math.inf, b"0ms")):
        [lines] = limits.lines(alice, now)
        assert lines.endswith(b"x-ratelimit-reset-tokens: " + expected)

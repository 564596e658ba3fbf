"""What a client used counts, half as much after a while, and what is in flight counts, too."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.access.consumption import HALF_LIFE, Consumption

clients = st.sampled_from("abc")


def used(consumption: Consumption, now: float = 0.0) -> dict[str, float]:
    """What each client has used, in tokens of now."""
    at = consumption.at(now)
    one = Consumption()
    one._origin = consumption._origin
    one.add("one", 1, now)
    return {name: at(name) / one.at(now)("one") for name in "abc"}


def test_who_used_more_counts_more_and_a_stranger_used_nothing() -> None:
    consumption = Consumption()
    consumption.add("a", 300, 0)
    consumption.add("b", 100, 0)
    consumption.add("b", 100, 0)
    at = consumption.at(0)
    assert at("a") > at("b") > at("c") == 0


def test_half_is_forgotten_after_a_half_life() -> None:
    consumption = Consumption()
    consumption.add("a", 400, 0)
    consumption.add("b", 300, HALF_LIFE)
    consumption.add("c", 100, 2 * HALF_LIFE)
    assert used(consumption, 2 * HALF_LIFE) == pytest.approx({"a": 100, "b": 150, "c": 100})


@given(
    st.lists(st.tuples(clients, st.integers(0, 10**6), st.floats(0, 1e6)), max_size=30),
    st.floats(1e4, 1e7),
)
def test_however_long_it_goes_on_the_numbers_are_those_of_the_plain_sum(
    deeds: list[tuple[str, int, float]], begin: float
) -> None:
    """Over millions of seconds, no number grows too large to be compared."""
    consumption, now, plain = Consumption(), begin, dict.fromkeys("abc", 0.0)
    for client, tokens, pause in deeds:
        now += pause
        plain = {name: sum_ * 2 ** (-pause / HALF_LIFE) for name, sum_ in plain.items()}
        plain[client] += tokens
        consumption.add(client, tokens, now)
    found = used(consumption, now)
    assert all(map(math.isfinite, found.values()))
    assert found == pytest.approx(plain, rel=1e-6, abs=1e-6)


def test_a_request_in_flight_counts_as_an_average_one() -> None:
    consumption = Consumption()
    for _ in range(100):
        consumption.add("a", 1000, 0)
    consumption.begin("b")
    consumption.begin("b")
    assert used(consumption)["b"] == pytest.approx(2000, rel=0.1)
    consumption.end("b")
    consumption.end("b")
    assert used(consumption)["b"] == 0


def test_a_million_clients_are_not_remembered_but_the_greediest_are() -> None:
    consumption = Consumption()
    consumption.add("greedy", 10**6, 0)
    for number in range(50_000):
        consumption.add(f"client {number}", 10, 0)
    assert len(consumption) <= 8192
    assert consumption.at(0)("greedy") >= 10**6


def test_a_clock_that_goes_back_hurts_nothing() -> None:
    consumption = Consumption()
    consumption.add("a", 100, 1e6)
    consumption.add("b", 100, 0)
    at = consumption.at(0)
    assert at("a") > at("b") >= 0

"""Who has the most is the first to get no more, and there is always room for one more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamasup.front.shares import Shares


def filled(shares: Shares, holder: str) -> int:
    """It takes all that it may have."""
    before = shares.taken
    while shares.allow(holder, 1):
        shares.take(holder, 1)
    return shares.taken - before


def test_a_single_client_may_have_half_and_each_further_one_a_part_of_the_rest() -> None:
    shares = Shares(1200)
    assert [filled(shares, name) for name in "abc"] == [600, 300, 150]


def test_clients_that_take_in_turns_get_equal_parts() -> None:
    shares = Shares(1200)
    for _ in range(1200):
        for name in "abc":
            if shares.allow(name, 1):
                shares.take(name, 1)
    assert shares.taken == 900


def test_what_is_given_back_may_be_taken_again() -> None:
    shares = Shares(1000)
    assert filled(shares, "a") == 500
    assert not shares.allow("a", 1)
    shares.give_back("a", 200)
    assert filled(shares, "a") == 200


def test_a_lower_limit_takes_nothing_away() -> None:
    shares = Shares(1000)
    filled(shares, "a")
    shares.limit = 100
    assert shares.taken == 500
    assert not shares.allow("b", 1)
    shares.give_back("a", 500)
    assert shares.allow("b", 50)


moves = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-50, 50)), max_size=200)


@given(st.integers(1, 200), moves)
def test_never_more_is_taken_than_there_is(limit: int, moves: list[tuple[str, int]]) -> None:
    shares = Shares(limit)
    held: dict[str, int] = dict.fromkeys("abcd", 0)
    for holder, amount in moves:
        if amount >= 0 and shares.allow(holder, amount):
            shares.take(holder, amount)
            held[holder] += amount
        elif amount < 0 and held[holder] >= -amount:
            shares.give_back(holder, -amount)
            held[holder] += amount
        assert shares.taken == sum(held.values()) <= limit
    for holder, amount in held.items():
        if amount:
            shares.give_back(holder, amount)
    assert shares.taken == 0

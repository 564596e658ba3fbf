"""Who has to go for whom, as a table and against looking through all who are in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import thread_time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llamasup.front.guests import Guests


def guests(*names: str) -> Guests[str]:
    """By their names: the first letter is the place; who rests no more has an "!" at the end."""
    house = Guests[str]()
    for name in names:
        house.add(name, name[0])
        if name.endswith("!"):
            house.wake(name)
    return house


@pytest.mark.parametrize(
    ("inside", "place", "goes"),
    [
        ("a1 a2 b1", "c", "a1"),
        ("b1 a1! a2 a3!", "c", "b1"),
        ("b1 a1! a2 a3", "c", "a2"),
        ("b1 a1 a2", "b", "b1"),
        ("b1 a1 a2 a3", "b", "a1"),
        ("b1 a1", "a", "a1"),
        ("b1 a1! a2!", "a", "b1"),
        ("b1 a1! a2! a3!", "a", None),
        ("b1 a1! a2! a3", "a", "a3"),
        ("a1! b1!", "c", None),
        ("", "a", None),
    ],
)
def test_the_place_with_the_most_resting_connections_loses_the_longest_resting_one(
    inside: str, place: str, goes: str | None
) -> None:
    assert guests(*inside.split()).to_close_for(place, 4) == goes


def test_a_connection_that_was_busy_rests_anew() -> None:
    house = guests("a1", "a2")
    house.wake("a1")
    house.rest("a1")
    assert house.to_close() == "a2"


@pytest.mark.parametrize(("most", "part"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (4096, 3072)])
def test_the_part_of_one_place_is_three_quarters(most: int, part: int) -> None:
    house = guests(*(f"a{number}" for number in range(part - 1)))
    assert not house.is_full_for("a", most)
    house.add("last", "a")
    assert house.has_its_share("a", most)
    assert house.is_full_for("a", most)
    assert house.is_full_for("b", most) is (part == most)


class House(RuleBasedStateMachine):
    """Whatever they do, nobody is lost or counted twice."""

    def __init__(self) -> None:
        super().__init__()
        self.house = Guests[int]()
        self.places: dict[int, str] = {}
        self.resting: list[int] = []

    @rule(guest=st.integers(0, 9), place=st.sampled_from("abc"))
    def come(self, guest: int, place: str) -> None:
        if guest not in self.places:
            self.house.add(guest, place)
            self.places[guest] = place
            self.resting.append(guest)

    @rule(guest=st.integers(0, 9))
    def go(self, guest: int) -> None:
        self.house.remove(guest)
        self.places.pop(guest, None)
        self.resting = [other for other in self.resting if other != guest]

    @rule(guest=st.integers(0, 9))
    def act(self, guest: int) -> None:
        self.house.wake(guest)
        self.resting = [other for other in self.resting if other != guest]

    @rule(guest=st.integers(0, 9))
    def rest(self, guest: int) -> None:
        self.house.rest(guest)
        if guest in self.places and guest not in self.resting:
            self.resting.append(guest)

    @invariant()
    def it_is_as_if_all_were_looked_at(self) -> None:
        assert sorted(self.house) == sorted(self.places)
        assert len(self.house) == len(self.places)
        counts = Counter(self.places[guest] for guest in self.resting)
        goes = self.house.to_close()
        assert (goes is None) is (not counts)
        for place in "abc":
            have = sum(other == place for other in self.places.values())
            assert self.house.has_its_share(place, 8) is (have >= 6)
            goes = self.house.to_close_for(place, 8)
            if have >= 6 and not counts[place]:
                assert goes is None
            elif goes is not None:
                whose = self.places[goes]
                assert goes == next(g for g in self.resting if self.places[g] == whose)
                assert whose == place or counts[whose] == max(counts.values()) > 0


TestHouse = House.TestCase
TestHouse.settings = settings(max_examples=100, deadline=None)


def seconds(deed: Callable[[], object]) -> float:
    begun = thread_time()
    deed()
    return thread_time() - begun


def test_ten_times_as_many_take_about_ten_times_as_long() -> None:
    def come_and_go(number: int) -> None:
        house = Guests[int]()
        for guest in range(number):
            house.add(guest, str(guest % 1000))
            house.wake(guest - 1)
            house.rest(guest - 2)
        while (goes := house.to_close()) is not None:
            house.remove(goes)

    small = min(seconds(lambda: come_and_go(3_000)) for _ in range(5))
    large = min(seconds(lambda: come_and_go(30_000)) for _ in range(3))
    assert large < 40 * small  # were it quadratic, it would be 100 times

"""A tally knows who has the most, against counting everything anew."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.pool.tally import Tally


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcde"))))
def test_whatever_is_added_and_taken_the_leader_has_the_most(
    changes: list[tuple[bool, str]],
) -> None:
    tally, counts = Tally[str](), Counter[str]()
    for adds, name in changes:
        if adds:
            tally.add(name)
            counts[name] += 1
        elif counts[name]:
            tally.take(name)
            counts[name] -= 1
        else:
            with pytest.raises(KeyError):
                tally.take(name)
        assert {name: tally[name] for name in "abcde"} == {name: counts[name] for name in "abcde"}
        assert bool(tally) is bool(counts.total())
        most = max(counts.values(), default=0)
        assert {*tally.leaders} == {name for name in counts if counts[name] == most > 0}


def test_of_several_leaders_the_first_to_reach_that_count_comes_first() -> None:
    tally = Tally[str]()
    for name in "abbaa":
        tally.add(name)
    tally.take("a")
    assert [*tally.leaders] == ["b", "a"]

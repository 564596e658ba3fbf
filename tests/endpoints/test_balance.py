"""Which instance answers: priority, where the model is, the conversation, and then the balance."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.endpoints.balance import Balance, Candidate, Where, choose, is_free_elsewhere


def chosen(*candidates: Candidate, **how: object) -> str | None:
    found = choose(candidates, **how)  # type: ignore[arg-type]
    return found and found.name


def at(name: str, where: Where, room: float = 1, cost: int = 0, priority: int = 0) -> Candidate:
    return Candidate(name, room, priority=priority, where=where, cost=cost)


@pytest.mark.parametrize(
    ("candidates", "name"),
    [
        ([], None),
        ([Candidate("full", 0)], None),
        ([Candidate("a", 1), Candidate("b", 1, priority=1)], "b"),
        ([Candidate("a", 1), Candidate("b", 0, priority=1)], "a"),
        ([Candidate("a", 1, in_flight=3), Candidate("b", 3, in_flight=1)], "b"),
        ([at("a", Where.FITS), at("b", Where.LOADED)], "b"),
        ([at("a", Where.FITS), at("b", Where.LOADED, room=0)], "a"),
        ([at("a", Where.EVICTS, cost=2), at("b", Where.EVICTS, cost=1)], "b"),
        ([at("a", Where.EVICTS, cost=2), at("b", Where.FITS)], "b"),
        ([at("a", Where.EVICTS), at("b", Where.LOADED, room=0)], None),
        ([at("a", Where.LOADS), at("b", Where.LOADED)], "b"),
        ([at("a", Where.LOADS), at("b", Where.FITS)], "a"),
        ([at("a", Where.EVICTS), at("b", Where.LOADS, room=0)], None),
        ([at("a", Where.CANNOT)], None),
        ([at("a", Where.LOADED), at("b", Where.FITS, priority=1)], "b"),
    ],
)
def test_the_next_request_goes(candidates: list[Candidate], name: str | None) -> None:
    assert chosen(*candidates) == name


@pytest.mark.parametrize(
    ("balance", "names"),
    [("round-robin", "abcabc"), ("least-connections", "abcabc"), ("priority", "aaaaaa")],
)
def test_idle_instances_take_turns(balance: Balance, names: str) -> None:
    idle = [Candidate(name, 4) for name in "abc"]
    assert [chosen(*idle, balance=balance, turn=turn) for turn in range(6)] == list(names)


def test_a_conversation_stays_where_it_was_and_moves_only_when_that_one_goes() -> None:
    instances = [Candidate(name, 4) for name in ("a", "b", "c", "d")]
    prefixes = [bytes([number]) for number in range(200)]
    before = {prefix: chosen(*instances, prefix=prefix, turn=prefix[0]) for prefix in prefixes}
    after = {prefix: chosen(*instances[:3], prefix=prefix) for prefix in prefixes}
    assert {prefix for prefix in prefixes if before[prefix] != after[prefix]} == {
        prefix for prefix in prefixes if before[prefix] == "d"
    }
    assert min(Counter(before.values()).values()) > 20


def test_a_conversation_does_not_wait_for_its_instance() -> None:
    assert chosen(Candidate("a", 0), Candidate("b", 1), prefix=b"x") == "b"


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.text(max_size=2),
        room=st.integers(0, 2),
        priority=st.integers(0, 2),
        in_flight=st.integers(0, 3),
        where=st.sampled_from(Where),
        cost=st.integers(0, 2),
    ),
    max_size=6,
)


@given(CANDIDATES, st.binary(max_size=2), st.integers(0, 9))
def test_only_instances_with_room_are_chosen_and_no_copy_evicts_beside_another(
    candidates: list[Candidate], prefix: bytes, turn: int
) -> None:
    found = choose(candidates, turn=turn, prefix=prefix)
    if found is None:
        return
    assert found in candidates
    assert found.room > 0
    assert found.where is not Where.CANNOT
    if found.where is Where.EVICTS:
        assert all(candidate.where is not Where.LOADED for candidate in candidates)
    assert found.priority == max(
        candidate.priority
        for candidate in candidates
        if candidate.room and candidate.where.value <= found.where.value
    )


@pytest.mark.parametrize(
    ("here", "others", "promised", "is_free"),
    [
        (at("a", Where.LOADS), [at("b", Where.LOADED)], 0, True),
        (at("a", Where.EVICTS), [at("b", Where.LOADED)], 0, True),
        (at("a", Where.LOADS), [at("b", Where.LOADED)], 1, False),
        (at("a", Where.LOADS), [at("b", Where.LOADED), at("c", Where.LOADED)], 1, True),
        (at("a", Where.LOADS), [at("b", Where.LOADED), at("c", Where.LOADED, room=-3)], 0, True),
        (at("a", Where.LOADS), [at("b", Where.LOADED, room=0)], 0, False),
        (at("a", Where.LOADS), [at("b", Where.FITS)], 0, False),
        (at("a", Where.LOADED), [at("b", Where.LOADED)], 0, False),
        (at("a", Where.LOADS, priority=1), [at("b", Where.LOADED)], 0, False),
    ],
)
def test_a_request_that_waits_for_a_load_goes_where_a_copy_is_free(
    here: Candidate, others: list[Candidate], promised: int, is_free: bool
) -> None:
    assert is_free_elsewhere(here, [here, *others], promised) is is_free

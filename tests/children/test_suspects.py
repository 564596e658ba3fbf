"""Requests that end engines: who is suspected, who is convicted, and what is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.children.suspects import (
    LONGEST_SENTENCE,
    MEMORY,
    MOST,
    SENTENCE,
    SUSPICION,
    Accused,
    Suspects,
)
from llamasup.errors import RequestKillsEngine


def one(name: str, *, client: str = "somebody", on_trial: bool = False) -> Accused:
    return Accused(name.encode(), client, on_trial)


def abandoned(name: str) -> Accused:
    return Accused(name.encode(), "somebody", abandoned=True)


def note_death(
    suspects: Suspects,
    accused: list[Accused],
    in_flight: int,
    now: float,
    *,
    from_outside: bool = False,
) -> int:
    return suspects.note_death(accused, in_flight, now, from_outside=from_outside)


def is_suspected(suspects: Suspects, name: str, now: float, client: str = "another") -> bool:
    return suspects.must_be_alone(name.encode(), client, now)


def is_convicted(suspects: Suspects, name: str, now: float) -> bool:
    try:
        is_suspected(suspects, name, now)
    except RequestKillsEngine:
        return True
    return False


def test_no_request_is_suspected_before_a_death() -> None:
    suspects = Suspects()
    assert not suspects
    assert not is_suspected(suspects, "a", 0)


def test_one_death_is_no_proof_but_requests_in_flight_are_tried_alone() -> None:
    suspects = Suspects()
    assert note_death(suspects, [one("a"), one("b")], 2, 0) == 0
    assert suspects
    assert [is_suspected(suspects, name, 1) for name in "abc"] == [True, True, False]


def test_a_second_death_convicts_and_says_what_is_so() -> None:
    suspects = Suspects()
    assert note_death(suspects, [one("a")], 1, 0) == 0
    assert note_death(suspects, [one("a", on_trial=True)], 1, 10) == 2
    with pytest.raises(RequestKillsEngine) as refusal:
        is_suspected(suspects, "a", 10)
    assert str(refusal.value) == (
        "this very request has ended the engine 2 times; it is refused, and may be tried again in"
        " 60 s"
    )
    assert (refusal.value.status, refusal.value.retry_after) == (422, SENTENCE)


def test_a_conviction_clears_the_requests_that_were_suspected_for_the_same_death() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a"), one("b"), one("c")], 3, 0)
    note_death(suspects, [one("a", on_trial=True)], 1, 1)
    assert [is_suspected(suspects, name, 2) for name in "bc"] == [False, False]


def test_requests_in_flight_learn_that_another_one_caused_a_death() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a"), one("b")], 2, 0)
    first = suspects.deaths
    assert not suspects.is_explained(first)
    note_death(suspects, [one("a", on_trial=True)], 1, 1)
    assert suspects.is_explained(first)
    assert suspects.is_explained(suspects.deaths)
    note_death(suspects, [one("b")], 1, 2)
    assert not suspects.is_explained(suspects.deaths)


def test_a_death_in_a_trial_is_laid_to_the_one_on_trial() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a"), one("b")], 2, 0)
    assert note_death(suspects, [one("b"), one("a", on_trial=True)], 2, 1) == 2
    assert is_convicted(suspects, "a", 1)
    assert not is_suspected(suspects, "b", 1)


def test_a_request_that_was_answered_alone_is_acquitted() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a")], 1, 0)
    suspects.acquit(b"a", "somebody")
    assert not is_suspected(suspects, "a", 1)
    suspects.acquit(b"never heard of", "nobody")


def test_deaths_that_are_far_apart_are_chance() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a", client="x")], 1, 0)
    assert note_death(suspects, [one("a", client="y")], 1, SUSPICION) == 0


def test_each_further_conviction_refuses_a_request_for_longer_within_bounds() -> None:
    suspects, now = Suspects(), 0.0
    note_death(suspects, [one("a")], 1, now)
    sentences = []
    for _ in range(11):
        assert note_death(suspects, [one("a", on_trial=True)], 1, now) > 0
        with pytest.raises(RequestKillsEngine) as refusal:
            is_suspected(suspects, "a", now)
        assert refusal.value.retry_after is not None
        sentences.append(refusal.value.retry_after)
        now += sentences[-1]
        assert is_suspected(suspects, "a", now)
    assert sentences[:3] == [SENTENCE, 2 * SENTENCE, 4 * SENTENCE]
    assert sentences[-1] == LONGEST_SENTENCE


def test_in_the_end_everything_is_forgotten() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a")], 1, 0)
    note_death(suspects, [one("a", on_trial=True)], 1, 0)
    assert is_suspected(suspects, "a", SENTENCE + MEMORY - 1)
    assert not is_suspected(suspects, "a", SENTENCE + MEMORY)
    assert not suspects


def test_a_client_that_ends_the_engine_with_ever_new_requests_is_tried_alone() -> None:
    suspects = Suspects()
    for now, name in enumerate("ab"):
        assert not is_suspected(suspects, name, now, "villain")
        note_death(suspects, [one(name, client="villain")], 1, now)
    assert is_suspected(suspects, "c", 2, "villain")
    assert not is_suspected(suspects, "c", 2, "somebody else")
    assert note_death(suspects, [one("c", client="villain", on_trial=True)], 1, 3) == 1
    assert is_convicted(suspects, "c", 4)
    assert not is_suspected(suspects, "d", 3 + SUSPICION, "villain")


def test_the_same_request_twice_makes_no_client_notorious() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a")], 1, 0)
    note_death(suspects, [one("a", on_trial=True)], 1, 1)
    assert not is_suspected(suspects, "b", 2, "somebody")


def test_a_client_is_not_notorious_for_deaths_with_other_requests_in_flight() -> None:
    suspects = Suspects()
    for now in range(3):
        note_death(suspects, [one(f"a{now}"), one(f"b{now}", client="other")], 2, now)
    assert not is_suspected(suspects, "c", 3, "somebody")


def test_an_answer_ends_it_for_behind_a_proxy_one_client_may_be_many() -> None:
    suspects = Suspects()
    for now, name in enumerate("ab"):
        note_death(suspects, [one(name, client="proxy")], 1, now)
    assert is_suspected(suspects, "c", 2, "proxy")
    suspects.acquit(b"c", "proxy")
    assert not is_suspected(suspects, "d", 2, "proxy")
    assert note_death(suspects, [one("d", client="proxy", on_trial=True)], 1, 3) == 0


def test_a_request_abandoned_shortly_before_a_death_is_suspected_as_well() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a"), abandoned("b")], 2, 0)
    assert is_suspected(suspects, "b", 1)


def test_a_request_on_trial_is_not_blamed_alone_if_another_was_abandoned_before() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a"), abandoned("b")], 2, 0)
    assert note_death(suspects, [one("a", on_trial=True), abandoned("c")], 2, 1) == 0
    assert not is_convicted(suspects, "a", 1)


def test_what_only_died_beside_others_is_convicted_by_a_third_death() -> None:
    suspects = Suspects()
    for now in range(2):
        assert note_death(suspects, [one("a"), one(f"b{now}")], 2, now) == 0
    assert note_death(suspects, [one("a"), one("c")], 2, 2) == 3
    assert [is_convicted(suspects, name, 3) for name in ("a", "b0", "c")] == [True, False, False]


def test_a_request_that_was_tried_without_harm_is_not_blamed_for_the_next_suspects_death() -> None:
    suspects = Suspects()
    note_death(suspects, [one("slow"), one("poison")], 2, 0)
    assert note_death(suspects, [one("slow"), one("poison", on_trial=True)], 2, 1) == 2
    assert not is_convicted(suspects, "slow", 1)


def test_a_kill_from_outside_is_no_sure_sign_of_anything() -> None:
    suspects = Suspects()
    for now in range(2):
        assert note_death(suspects, [one("a", on_trial=True)], 1, now, from_outside=True) == 0
    assert is_suspected(suspects, "a", 2)
    assert not is_suspected(suspects, "b", 2, "somebody")
    assert note_death(suspects, [one("a", on_trial=True)], 1, 3, from_outside=True) == 3


def test_a_suspect_whose_trials_never_end_is_let_in_beside_others_until_the_next_death() -> None:
    suspects = Suspects()
    note_death(suspects, [one("a")], 1, 0)
    for _ in range(3):
        assert is_suspected(suspects, "a", 1)
        suspects.note_vain_trial(b"a", "somebody")
    assert not is_suspected(suspects, "a", 1)
    note_death(suspects, [one("a"), one("b")], 2, 2)
    assert is_suspected(suspects, "a", 2)


def test_so_is_a_client_that_is_known_for_making_up_new_ones() -> None:
    suspects = Suspects()
    for now, name in enumerate("ab"):
        note_death(suspects, [one(name, client="villain")], 1, now)
    for name in "cde":
        assert is_suspected(suspects, name, 2, "villain")
        suspects.note_vain_trial(name.encode(), "villain")
    assert not is_suspected(suspects, "f", 2, "villain")


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.tuples(st.integers(0, 400), st.integers(0, 400), st.booleans()), max_size=9
            ),
            st.floats(0, 2000),
        ),
        max_size=60,
    )
)
def test_whatever_happens_little_is_kept_and_no_death_is_explained_that_was_none(
    history: list[tuple[list[tuple[int, int, bool]], float]],
) -> None:
    suspects, now, explained = Suspects(), 0.0, 0
    for deaths, (accused, pause) in enumerate(history, start=1):
        now += pause
        those = [Accused(b"%d" % digest, client, alone) for digest, client, alone in accused]
        explained += note_death(suspects, those, len(those), now)
        assert explained <= deaths
        assert len(suspects._files) <= MOST
        assert len(suspects._clients) <= MOST

"""The beginning of a conversation: the same on each turn of it, another one for another."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.endpoints.prefix import LONGEST, prefix_of

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}


def digest(**body: object) -> bytes:
    return prefix_of(json.dumps(body).encode())


def test_later_turns_begin_as_the_first_one() -> None:
    first = digest(messages=[SYSTEM, FIRST], seed=1)
    assert first
    assert digest(messages=[SYSTEM, FIRST, ANSWER, FIRST], seed=2) == first
    assert digest(messages=[FIRST]) != first


def test_a_prompt_and_an_input_count_by_their_first_part() -> None:
    assert digest(prompt="x" * 2000 + "a") == digest(prompt="x" * 2000 + "b")
    assert digest(prompt="a") != digest(prompt="b")
    assert digest(input="a")


def test_a_system_prompt_beside_the_messages_counts() -> None:
    assert digest(system="a", messages=[FIRST]) != digest(system="b", messages=[FIRST])


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"{", object(), b" " * (LONGEST + 1)])
def test_without_anything_to_go_by_there_is_no_digest(body: object) -> None:
    assert prefix_of(body) == b""


@given(st.binary(max_size=80))
def test_nothing_raises(body: bytes) -> None:
    prefix_of(body)

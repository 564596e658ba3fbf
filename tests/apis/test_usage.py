"""What an answer took is read where its dialect says, in what a real engine answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.apis.anthropic_messages import Messages
from llamasup.apis.dialect import Dialect
from llamasup.apis.llama_cpp import LlamaCpp
from llamasup.apis.openai_chat import Chat
from llamasup.apis.openai_completions import Completions
from llamasup.apis.openai_others import OpenAIOthers
from llamasup.apis.openai_responses import Responses
from llamasup.apis.usage import usage_of_answer, usage_of_stream
from llamasup.events import Usage
from tests.apis.test_dialects import STREAMING, each_streaming, recording

PROMPT_TOKENS = {Chat: 7, Completions: 6, Responses: 7, Messages: 7, LlamaCpp: 6}
END_REASONS = {
    Chat: "length",
    Completions: "length",
    Responses: "completed",
    Messages: "max_tokens",
    LlamaCpp: "limit",
}


def expected(dialect: Dialect) -> Usage:
    return Usage(PROMPT_TOKENS[type(dialect)], 3, END_REASONS[type(dialect)])


@each_streaming
def test_an_answer_says_how_much_it_took_and_why_it_ended(dialect: Dialect) -> None:
    assert usage_of_answer(dialect, recording(dialect, ".json")) == expected(dialect)


@each_streaming
def test_a_stream_says_the_same(dialect: Dialect) -> None:
    assert usage_of_stream(dialect, recording(dialect, ".sse")) == expected(dialect)


@each_streaming
def test_its_first_and_last_events_are_enough(dialect: Dialect) -> None:
    events = recording(dialect, ".sse").split(b"\n\n")
    ends = b"\n\n".join([events[0], *events[-4:]])
    assert usage_of_stream(dialect, ends) == expected(dialect)


def test_of_several_answers_in_one_the_engine_counts_one() -> None:
    for dialect in (Chat(), Completions()):
        usage = usage_of_answer(dialect, recording(dialect, "_two.json"))
        assert usage is not None
        assert usage.answer_tokens == 2


def test_several_answers_in_a_list_are_added_up() -> None:
    for dialect in (Responses(), LlamaCpp()):
        usage = usage_of_answer(dialect, recording(dialect, "_two.json"))
        assert usage is not None
        assert usage.answer_tokens == 4


@given(st.binary())
def test_what_says_nothing_is_no_usage(content: bytes) -> None:
    for dialect in (*STREAMING, OpenAIOthers()):
        assert usage_of_answer(dialect, content) is None
        assert usage_of_stream(dialect, b"data: " + content) is None


@pytest.mark.parametrize("body", [b"[]", b"{}", b"[1]", b'{"usage": {"completion_tokens": "3"}}'])
def test_nor_is_what_says_it_in_another_form(body: bytes) -> None:
    assert usage_of_answer(Chat(), body) is None

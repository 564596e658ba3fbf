"""What an answer took is read where its dialect says, in what a real engine answered."""

from __future__ import annotations

import json
import re
import time

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
from llamasup.apis.usage import usage_at_least, usage_of_answer, usage_of_ends, usage_of_stream
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
    prompt = PROMPT_TOKENS[type(dialect)]
    return Usage(prompt, 3, END_REASONS[type(dialect)], cached_tokens=prompt - 1)


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


# --- what the engine remembered, and what comes where it is not asked for ---


@pytest.mark.parametrize("number", ["-5", "99999999999", "1" * 30, "true", "1e3"])
def test_numbers_that_no_answer_can_have_are_not_believed(number: str) -> None:
    usage = f'{{"usage": {{"prompt_tokens": {number}, "completion_tokens": {number}}}}}'
    assert usage_of_answer(Chat(), usage.encode()) is None
    assert usage_of_stream(Chat(), f"data: {usage}\n\n".encode()) is None


@each_streaming
def test_what_the_engine_remembered_was_not_computed(dialect: Dialect) -> None:
    cached = PROMPT_TOKENS[type(dialect)] - 1
    for usage in (
        usage_of_answer(dialect, recording(dialect, ".json")),
        usage_of_stream(dialect, recording(dialect, ".sse")),
        usage_of_ends(dialect, recording(dialect, ".json")[-700:]),
    ):
        assert usage is not None
        assert usage.cached_tokens == cached
        assert usage.computed_tokens == 1 + 3


def test_a_stream_without_a_usage_says_it_in_its_timings() -> None:
    for dialect in (Chat(), Completions()):
        events = re.sub(rb'"usage":\{.*?\}\},', b"", recording(dialect, ".sse"))
        assert b'"usage"' not in events
        assert usage_of_stream(dialect, events) == expected(dialect)


@each_streaming
def test_the_end_of_a_stream_is_enough_though_its_last_event_is_cut(dialect: Dialect) -> None:
    """The last event may repeat the whole answer, or the whole prompt."""
    if isinstance(dialect, Messages):
        return  # it says its prompt's tokens at the beginning
    usage = usage_of_stream(dialect, recording(dialect, ".sse")[-520:])
    assert usage is not None
    assert (usage.prompt_tokens, usage.answer_tokens) == (PROMPT_TOKENS[type(dialect)], 3)


def test_an_embedding_takes_the_tokens_of_its_prompt() -> None:
    body = b'{"object":"list","usage":{"prompt_tokens":9,"total_tokens":9},"data":[]}'
    others = OpenAIOthers()
    assert usage_of_answer(others, body) == usage_of_ends(others, body) == Usage(9, 0, "")


def test_what_a_model_says_is_no_usage() -> None:
    said = json.dumps('"completion_tokens":7,"prompt_tokens":7')
    event = b'data: {"choices":[{"delta":{"content":%b}}]}\n\n' % said.encode()
    assert usage_of_stream(Chat(), event) is None


def test_what_did_not_end_took_what_was_seen_and_a_bounded_guess() -> None:
    assert usage_at_least(400, 12).computed_tokens == 100 + 12
    assert usage_at_least(64 << 20, 0).computed_tokens == 4096


def test_reading_the_longest_margins_takes_little_time() -> None:
    event = b'data: {"choices":[{"finish_reason":null,"delta":{"content":"x"}}]}\n\n'
    events = event * 300 + recording(Chat(), ".sse")[-800:]
    began = time.thread_time()
    for _ in range(100):
        assert usage_of_stream(Chat(), events) is not None
    assert (time.thread_time() - began) / 100 < 0.0005

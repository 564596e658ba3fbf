"""Chats are put as OpenAI's, and the answers become Ollama's lines."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.apis.ollama_chat import OllamaChat
from llamasup.errors import ClientError
from tests.apis.ollama_asking import NOW, OPENING, events, lines, residence, translation

PATH = b"/api/chat"
HELLO = [{"role": "user", "content": "hello"}]
RECORDED = (Path(__file__).parent / "recordings" / "openai_chat.sse").read_bytes()


def put(**members: object) -> Any:
    """A chat with these members, as an engine is asked."""
    asked = {"model": "count", "messages": HELLO, **members}
    return json.loads(translation(OllamaChat(), PATH, asked).body)


def messages(*given: object) -> Any:
    return put(messages=given)["messages"]


def answer(document: object) -> Any:
    """A whole answer, told."""
    reply = translation(OllamaChat(), PATH, {"messages": HELLO}).reply(NOW)
    return json.loads(reply.whole(json.dumps(document).encode()))


def test_a_chat_streams_unless_it_is_asked_not_to() -> None:
    assert put() == {
        "model": "count",
        "messages": HELLO,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert put(stream=False) == {"model": "count", "messages": HELLO, "stream": False}


def test_it_goes_to_the_engines_chat() -> None:
    meant = translation(OllamaChat(), PATH, {"messages": HELLO, "stream": False, "keep_alive": 0})
    assert (meant.target, meant.streams, meant.unloads) == (b"/v1/chat/completions", False, True)


@pytest.mark.parametrize(
    ("asked", "member", "value"),
    [
        ({"options": {"num_predict": 3}}, "max_tokens", 3),
        ({"tools": [{"type": "function"}]}, "tools", [{"type": "function"}]),
        (
            {"format": {"type": "object"}},
            "response_format",
            {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        ),
        ({"think": False}, "chat_template_kwargs", {"enable_thinking": False}),
        (
            {"think": "high"},
            "chat_template_kwargs",
            {"enable_thinking": True, "reasoning_effort": "high"},
        ),
        ({"logprobs": True, "top_logprobs": 2}, "top_logprobs", 2),
        ({"logprobs": True}, "top_logprobs", 1),
    ],
)
def test_each_wish_has_its_member(asked: dict[str, object], member: str, value: object) -> None:
    assert put(**asked)[member] == value


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": []},
        {"tools": None},
        {"format": ""},
        {"think": None},
        {"options": None},
        {"options": {"num_ctx": 8192}},
        {"keep_alive": "5m"},
        {"unheard_of": [1]},
    ],
)
def test_what_asks_for_nothing_changes_nothing(asked: dict[str, object]) -> None:
    assert put(**asked) == put()


def test_a_model_that_is_not_named_is_not_named_to_the_engine_either() -> None:
    assert "model" not in json.loads(translation(OllamaChat(), PATH, {"messages": HELLO}).body)


def test_images_and_thoughts_come_with_their_messages() -> None:
    [seen, thought] = messages(
        {"role": "user", "content": "what?", "images": ["iVBORw0KGgo="]},
        {"role": "assistant", "content": "a cat", "thinking": "fur"},
    )
    assert seen["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
    assert thought == {"role": "assistant", "content": "a cat", "reasoning_content": "fur"}


def test_the_answers_of_tools_find_their_calls() -> None:
    calls = [{"function": {"name": name, "arguments": {"x": 1}}} for name in ("add", "sub", "add")]
    given = [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "0", "tool_name": "sub"},
        {"role": "tool", "content": "1", "tool_name": "add"},
        {"role": "tool", "content": "2", "name": "add"},
        {"role": "assistant", "tool_calls": [{"id": "own", "function": {"name": "add"}}]},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "4", "tool_name": "lost"},
    ]
    first, *answers = messages(*given)
    assert first["tool_calls"][0] == {
        "id": "call_0",
        "type": "function",
        "function": {"name": "add", "arguments": '{"x": 1}'},
    }
    told = [(answer.get("name"), answer.get("tool_call_id")) for answer in answers]
    assert told == [
        ("sub", "call_1"),
        ("add", "call_0"),
        ("add", "call_2"),
        (None, None),
        ("add", "own"),
        ("lost", None),
    ]
    assert answers[3]["tool_calls"][0]["id"] == "own"


def test_calls_that_name_what_they_answer_are_found_by_that() -> None:
    calls = [{"id": id, "function": {"name": "add", "arguments": "{}"}} for id in ("a", "b")]
    _, answered, unknown = messages(
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "b", "content": "1"},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    )
    assert (answered["tool_call_id"], unknown["tool_call_id"]) == ("b", "c")


@pytest.mark.parametrize("given", [[7], [{"content": "x"}], "x", [{"role": "user", "content": []}]])
def test_messages_that_are_none_are_refused(given: object) -> None:
    with pytest.raises(ClientError):
        translation(OllamaChat(), PATH, {"messages": given})


def test_without_messages_the_model_is_loaded_or_unloaded() -> None:
    message = {"role": "assistant", "content": ""}
    told = {**OPENING, "message": message, "done": True}
    for asked in ({}, {"messages": []}, {"messages": None, "keep_alive": "5m"}):
        assert residence(OllamaChat(), PATH, asked) == (True, {**told, "done_reason": "load"})
    assert residence(OllamaChat(), PATH, {"keep_alive": 0}) == (
        False,
        {**told, "done_reason": "unload"},
    )


def test_a_stream_becomes_lines() -> None:
    reply = translation(OllamaChat(), PATH, {"messages": HELLO}).reply(NOW)
    told = lines(
        reply,
        events(
            {"choices": [{"delta": {"role": "assistant", "content": None}}]},
            {"choices": [{"delta": {"reasoning_content": "hm"}}]},
            {"choices": [{"delta": {"content": "4"}}]},
            {"choices": [{"delta": {"tool_calls": [{"function": {"name": "f"}}]}}]},
            {"choices": [{"delta": {}, "finish_reason": "length"}]},
            {
                "choices": [],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3},
                "timings": {"prompt_ms": 1.5, "predicted_ms": 20},
            },
        ),
    )
    says = {"role": "assistant", "content": ""}
    call = {"function": {"index": 0, "name": "f", "arguments": {}}}
    assert told == [
        {**OPENING, "message": {**says, "thinking": "hm"}, "done": False},
        {**OPENING, "message": {**says, "content": "4"}, "done": False},
        {**OPENING, "message": {**says, "tool_calls": [call]}, "done": False},
        {
            **OPENING,
            "message": says,
            "done": True,
            "done_reason": "length",
            "total_duration": 521_500_000,
            "load_duration": 500_000_000,
            "prompt_eval_count": 7,
            "prompt_eval_duration": 1_500_000,
            "eval_count": 3,
            "eval_duration": 20_000_000,
        },
    ]
    assert reply.ended


def test_an_error_within_a_stream_is_its_last_line() -> None:
    reply = translation(OllamaChat(), PATH, {"messages": HELLO}).reply(NOW)
    assert lines(reply, events({"error": {"message": "no"}})) == [{"error": "no"}]
    assert (reply.ended, reply.error) == (True, "no")


def test_a_whole_answer_is_told_in_one() -> None:
    message = {"content": "4", "reasoning_content": "hm"}
    told = answer({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert told["message"] == {"role": "assistant", "content": "4", "thinking": "hm"}
    assert (told["done"], told["done_reason"]) == (True, "stop")


@given(st.lists(st.integers(0, len(RECORDED)), max_size=8).map(sorted))
def test_a_recorded_stream_that_is_cut_anywhere_gives_the_same_lines(cuts: list[int]) -> None:
    meant = translation(OllamaChat(), PATH, {"messages": HELLO})
    reply, edges = meant.reply(NOW), [0, *cuts, len(RECORDED)]
    pieces = (RECORDED[start:end] for start, end in pairwise(edges))
    assert b"".join(map(reply.lines, pieces)) == meant.reply(NOW).lines(RECORDED)
    assert reply.ended


def test_thousands_of_calls_and_answers_are_matched_at_once() -> None:
    """Not each answer with each call: a request of 64 KiB would take a second."""
    calls = [{"function": {"name": f"tool{number}"}} for number in range(20_000)]
    answers = [{"role": "tool", "tool_name": f"tool{number}"} for number in range(20_000, 0, -1)]
    begun = time.process_time()
    told = messages({"role": "assistant", "tool_calls": calls}, *answers)
    assert time.process_time() - begun < 5
    assert told[1] == {"role": "tool", "content": "", "name": "tool20000"}
    assert (told[2]["name"], told[2]["tool_call_id"]) == ("tool19999", "call_19999")


def test_each_call_is_answered_once_by_its_id_its_name_or_its_turn() -> None:
    calls = [{"id": id, "function": {"name": name}} for id, name in ("1a", "2a", "3b", "4b")]
    said = [{"tool_call_id": "2"}, {"tool_name": "a"}, {"tool_name": "a"}, {"name": "b"}, {}, {}]
    tools = [{"role": "tool", **one} for one in said]
    told = messages({"role": "assistant", "tool_calls": calls}, *tools)[1:]
    assert [one.get("tool_call_id") for one in told] == ["2", "1", None, "3", "4", None]

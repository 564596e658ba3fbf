"""What a model says is the same, whether it comes whole or as a stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamasup.apis.said import (
    Call,
    ChatListener,
    CompletionListener,
    End,
    Failure,
    Listener,
    Said,
)
from llamasup.errors import EngineFailed

RECORDINGS = Path(__file__).parent / "recordings"
DONE = b"[DONE]"


def heard(listener: Listener, *events: object) -> list[Said | End | Failure]:
    """What these events say."""
    data = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    return [part for event in data for part in listener.heard(event)]


def delta(**members: object) -> object:
    return {"choices": [{"index": 0, "finish_reason": None, "delta": members}]}


def part_of_call(index: int, **members: object) -> object:
    return delta(tool_calls=[{"index": index, **members}])


@pytest.mark.parametrize(
    ("name", "listener"),
    [("openai_chat", ChatListener), ("llama_cpp", CompletionListener)],
)
def test_a_recorded_stream_says_what_the_recorded_answer_says(
    name: str, listener: type[Listener]
) -> None:
    events = (RECORDINGS / f"{name}.sse").read_bytes().splitlines()
    data = [line.removeprefix(b"data: ") for line in events if line.startswith(b"data: ")]
    *words, end = heard(listener(), *data)
    said, whole_end = listener().whole((RECORDINGS / f"{name}.json").read_bytes())
    assert "".join(part.text for part in words if isinstance(part, Said)) == said.text
    assert isinstance(end, End)
    assert said.text
    assert (end.too_long, end.answer_tokens) == (whole_end.too_long, whole_end.answer_tokens)
    assert end.answer_tokens > 0


def test_thinking_is_apart_from_the_text() -> None:
    parts = heard(ChatListener(), delta(reasoning_content="Hm"), delta(content="4"))
    assert parts == [Said(thinking="Hm"), Said("4")]


def test_the_parts_of_calls_are_put_together() -> None:
    events = [
        part_of_call(0, id="a", function={"name": "add", "arguments": ""}),
        part_of_call(0, function={"arguments": '{"x":'}),
        part_of_call(1, id="b", function={"name": "sub", "arguments": "{}"}),
        part_of_call(0, function={"arguments": "1}"}),
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        DONE,
    ]
    calls = (Call("add", '{"x":1}', "a"), Call("sub", "{}", "b"))
    assert heard(ChatListener(), *events) == [Said(calls=calls), End()]


def test_calls_of_a_whole_answer_need_no_numbers() -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}, "id": name} for name in ("a", "b")]
    document = {"choices": [{"message": {"content": None, "tool_calls": calls}}]}
    said, _ = ChatListener().whole(json.dumps(document).encode())
    assert said == Said(calls=(Call("a", "{}", "a"), Call("b", "{}", "b")))


def test_logprobs_are_kept_as_they_are() -> None:
    entry = {"token": "a", "logprob": -0.5, "new": True}
    choice = {"delta": {"content": "a"}, "logprobs": {"content": [entry]}}
    [said] = heard(ChatListener(), {"choices": [choice]})
    assert isinstance(said, Said)
    assert json.loads(bytes(said.logprobs)) == [entry]
    [said] = heard(CompletionListener(), {"content": "a", "completion_probabilities": [entry]})
    assert isinstance(said, Said)
    assert json.loads(bytes(said.logprobs)) == [entry]


@pytest.mark.parametrize("listener", [ChatListener, CompletionListener])
@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"error": {"message": "no", "code": 500}}, "no"),
        ({"error": "no"}, "no"),
        ({"message": "no", "code": 500}, "no"),
        ({"error": {}}, "the engine failed"),
    ],
)
def test_an_error_is_heard_in_every_form(
    listener: type[Listener], event: object, message: str
) -> None:
    assert heard(listener(), event) == [Failure(message)]


@pytest.mark.parametrize("listener", [ChatListener, CompletionListener])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"choices": 7, "content": 7}', b"\xff"])
def test_what_cannot_be_read_is_the_engines_failure(listener: type[Listener], body: bytes) -> None:
    with pytest.raises(EngineFailed):
        listener().whole(body)
    with pytest.raises(EngineFailed):
        list(listener().heard(body))


def test_an_answer_without_choices_says_nothing() -> None:
    with pytest.raises(EngineFailed, match="no choices"):
        ChatListener().whole(b"{}")

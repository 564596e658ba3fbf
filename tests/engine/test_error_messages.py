"""An engine's own words are found in its errors, and nowhere else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.engine.error_messages import message_of_reply, messages_in_events

WORDS = "CUDA error: out of memory"
ERROR = {"code": 500, "message": WORDS, "type": "server_error"}


def event(document: object, field: str = "data") -> bytes:
    return f"{field}: {json.dumps(document)}\n\n".encode()


def delta(text: str, model: str = "m") -> bytes:
    return event({"choices": [{"delta": {"content": text}}], "model": model})


def chunked(*contents: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(content), content) for content in contents)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": ERROR}, WORDS),
        ({"type": "error", "error": {"type": "api_error", "message": WORDS}}, WORDS),
        ({"error": WORDS}, WORDS),
        (ERROR, WORDS),
        ({"error": {"message": 'a "quoted" word'}}, 'a "quoted" word'),
        ({"error": {"type": WORDS}, "model": WORDS}, ""),
        ({"error": None, "prompt": WORDS}, ""),
        ([WORDS], ""),
    ],
)
def test_a_bad_answer_says_what_its_error_says(body: object, message: str) -> None:
    assert message_of_reply(json.dumps(body).encode()) == message


def test_a_bad_answer_that_is_no_json_says_how_it_begins() -> None:
    assert message_of_reply(WORDS.encode()) == WORDS
    assert message_of_reply(b"<html>" + b"x" * 1000 + WORDS.encode()) == "<html>" + "x" * 194
    assert message_of_reply(b"\xff") == "\N{REPLACEMENT CHARACTER}"
    assert message_of_reply(b"[" * 100_000) == "[" * 200


@pytest.mark.parametrize(
    "events",
    [
        event({"error": ERROR}),
        event({"error": WORDS}),
        event({"type": "error", "error": {"type": "api_error", "message": WORDS}}),
        b"event: error\n" + event({"type": "error", "error": {"message": WORDS}}),
        b"event: error\n" + event(ERROR),
        event(ERROR, "error"),
        event({"error": ERROR}, "error"),
    ],
    ids=["openai", "text", "anthropic", "anthropic, named", "llama-server", "native", "wrapped"],
)
def test_every_api_has_its_form_of_an_error(events: bytes) -> None:
    for stream in (events, chunked(events), chunked(delta("error"), events, b"data: [DONE]\n\n")):
        assert list(messages_in_events(stream)) == [WORDS]


@pytest.mark.parametrize(
    "events",
    [
        delta("error", model="cuda-coder"),
        delta("cuda") + delta("error"),
        delta('data: {"error":{"message":"out of memory"}}'),
        delta('\n\ndata: {"error":{"message":"out of memory"}}\n\n'),
        delta("\nevent: error\ndata: out of memory"),
        event({"content": "", "stop": True, "prompt": "explain cuda", "words": ["error"]}),
        event({"generation_settings": {"stop": ["error"]}, "prompt": "explain cuda"}),
        event({"choices": [{"logprobs": {"content": [{"token": "error"}, {"token": "cuda"}]}}]}),
        event({"response": {"error": {"message": WORDS}}}),
        event({"error": None, "message": WORDS}),
        event({"error": 7}),
        b"event: error\ndata: [DONE]\n\n",
        b'data: {"error": {"message": "cuda\n\n',
        b": error, cuda\n\n",
    ],
)
def test_text_is_no_error_whatever_it_says(events: bytes) -> None:
    assert list(messages_in_events(events)) == []
    assert list(messages_in_events(chunked(events, events))) == []


@given(st.lists(st.text() | st.sampled_from(["error", "cuda", '{"error":"cuda"}', "\ndata: "])))
def test_no_model_can_say_an_error(tokens: list[str]) -> None:
    assert list(messages_in_events(chunked(*map(delta, tokens)))) == []


@given(st.binary())
def test_an_answer_may_be_any_bytes(content: bytes) -> None:
    message_of_reply(content)
    list(messages_in_events(b'event: error\ndata: {"error": ' + content))

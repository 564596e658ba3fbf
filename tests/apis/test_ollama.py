"""What Ollama's APIs have in common: options, formats, images, errors and calls of tools."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.apis.dialects import TRANSLATED, dialect_at
from llamasup.apis.ollama import (
    Ollama,
    Request,
    content,
    sampling,
    schema,
    tool_calls,
    understood,
)
from llamasup.apis.ollama_chat import OllamaChat
from llamasup.apis.said import Call
from llamasup.apis.translation import Translation
from llamasup.errors import ClientError, EngineFailed, ModelNotFound
from tests.apis.ollama_asking import NOW

DIALECT: Ollama = OllamaChat()
MEMBERS = st.sampled_from(
    [
        *("model", "messages", "prompt", "input", "options", "format", "think", "keep_alive"),
        *("tools", "stream", "logprobs", "top_logprobs", "suffix", "raw", "images", "role"),
        *("content", "tool_calls", "function", "name", "arguments", "stop", "num_predict"),
        *("choices", "delta", "message", "usage", "timings", "error", "finish_reason"),
    ]
)


def options(given: object) -> Any:
    """These options as members of an engine's request."""
    asked = understood(json.dumps({"options": given}).encode(), Request)
    return json.loads(msgspec.json.encode(sampling(asked.options, limit="max_tokens")))


@pytest.mark.parametrize(
    ("given", "members"),
    [
        (None, {}),
        ({}, {}),
        (
            {"temperature": 0, "top_k": 40, "min_p": 0.1},
            {"temperature": 0, "top_k": 40, "min_p": 0.1},
        ),
        ({"seed": 7, "stop": ["a", "b"]}, {"seed": 7, "stop": ["a", "b"]}),
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"num_predict": 9}, {"max_tokens": 9}),
        ({"num_predict": -1}, {"max_tokens": -1}),
        ({"num_predict": -2}, {"max_tokens": -1}),
        ({"num_keep": 4}, {"n_keep": 4}),
        ({"temperature": None, "num_predict": None, "num_keep": None}, {}),
        ({"num_ctx": 4096, "num_gpu": 1, "num_thread": 2, "unheard_of": {}}, {}),
    ],
)
def test_options_get_the_engines_names(given: object, members: object) -> None:
    assert options(given) == members


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (b"null", None),
        (b'""', None),
        (b'"json"', {"type": "object"}),
        (b'{"type":"array"}', {"type": "array"}),
    ],
)
def test_a_format_is_a_schema(format: bytes, expected: object) -> None:
    wanted = schema(msgspec.Raw(format))
    assert (wanted and json.loads(bytes(wanted))) == expected


@pytest.mark.parametrize("format", [b'"xml"', b"7", b"[]", b"true"])
def test_no_other_format_is_understood(format: bytes) -> None:
    with pytest.raises(ClientError, match="format"):
        schema(msgspec.Raw(format))


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgo="),
        ("/9j/4AAQ", "data:image/jpeg;base64,/9j/4AAQ"),
        ("R0lGODlh", "data:image/gif;base64,R0lGODlh"),
        ("UklGRg==", "data:image/webp;base64,UklGRg=="),
        ("data:image/png;base64,AA", "data:image/png;base64,AA"),
        ("https://a/b.png", "https://a/b.png"),
    ],
)
def test_an_image_becomes_a_url(image: str, url: str) -> None:
    parts = content("what?", [msgspec.Raw(json.dumps(image).encode())])
    assert json.loads(msgspec.json.encode(parts)) == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


def test_slashes_in_an_image_may_be_escaped() -> None:
    [part] = json.loads(msgspec.json.encode(content("", [msgspec.Raw(rb'"\/9j\/4AAQ"')])))
    assert part["image_url"]["url"] == "data:image/jpeg;base64,/9j/4AAQ"


def test_an_image_that_is_no_text_is_refused() -> None:
    with pytest.raises(ClientError, match="base 64"):
        content("", [msgspec.Raw(b"[1, 2]")])


@pytest.mark.parametrize(
    ("keep_alive", "unloads"),
    [
        *((given, True) for given in (0, 0.0, "0", "0s", "0h0m", "0.0s")),
        *((given, False) for given in (None, 1, -1, "5m", "-1", "-1m", "", "10s", 0.5)),
    ],
)
def test_no_time_to_keep_alive_unloads(keep_alive: object, unloads: bool) -> None:
    body = json.dumps({"keep_alive": keep_alive}).encode()
    assert understood(body, Request).unloads is unloads


def test_an_answer_is_a_stream_unless_that_is_refused() -> None:
    assert understood(b"{}", Request).streams
    assert understood(b'{"stream": null}', Request).streams
    assert not understood(b'{"stream": false}', Request).streams


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": 7}', b'{"options": []}', b"\xff"])
def test_what_cannot_be_understood_is_the_clients_error(body: bytes) -> None:
    with pytest.raises(ClientError, match="the body"):
        understood(body, Request)


def test_nesting_has_a_bound() -> None:
    with pytest.raises(ClientError):
        understood(b'{"format":' + b"[" * 100_000, Request)


def test_errors_have_ollamas_form() -> None:
    error = ModelNotFound("there is none")
    assert DIALECT.error_body(error) == {"error": "there is none"}
    assert DIALECT.error_event(error) == b'{"error": "there is none"}\n'


@pytest.mark.parametrize(
    ("body", "corrected"),
    [
        (b'{"error":{"code":400,"message":"no"}}', b'{"error":"no"}'),
        (b'{"error":"no"}', None),
        (b"no", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_an_engines_error_gets_ollamas_form(body: bytes, corrected: bytes | None) -> None:
    assert DIALECT.corrected(400, body) == corrected


def test_a_waiting_client_is_sent_what_json_allows_before_a_value() -> None:
    line = DIALECT.comment(b"loading") + b'{"done":true}\n'
    assert json.loads(line) == {"done": True}


def test_the_arguments_of_a_call_are_an_object_and_what_is_broken_is_text() -> None:
    calls = [Call("add", '{"x":[1]}', "a"), Call("cut", '{"x":'), Call("none", ""), Call("l", "[]")]
    told, broken = tool_calls(calls)
    assert json.loads(msgspec.json.encode(told)) == [
        {"id": "a", "function": {"index": 0, "name": "add", "arguments": {"x": [1]}}},
        {"function": {"index": 1, "name": "none", "arguments": {}}},
    ]
    assert broken == '{"name": "cut", "arguments": "{\\"x\\":"}{"name": "l", "arguments": "[]"}'


# --- whatever comes ---

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=4),
    max_leaves=12,
)
MESSAGES = [
    {"role": "user", "content": "x", "images": ["iVBORw0KGgo="]},
    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": "é"}}}]},
    {"role": "tool", "tool_name": "f", "content": "1"},
]
WHOLE = json.dumps(
    {
        "model": "m",
        "messages": MESSAGES,
        "prompt": "p",
        "input": ["i"],
        "raw": True,
        "options": {"stop": ["s"], "num_predict": 5},
        "format": {"type": "object"},
        "think": "low",
        "keep_alive": 0,
        "tools": [{"type": "function"}],
    },
    ensure_ascii=False,
).encode()


@given(st.sampled_from(TRANSLATED), st.dictionaries(MEMBERS, VALUES))
def test_any_json_is_translated_or_refused(dialect: Ollama, asked: object) -> None:
    with suppress(ClientError):
        translate(dialect, json.dumps(asked).encode())


@given(st.sampled_from(TRANSLATED), st.integers(0, len(WHOLE)), st.binary(max_size=3))
def test_any_bytes_are_translated_or_refused(dialect: Ollama, at: int, put: bytes) -> None:
    with suppress(ClientError):
        translate(dialect, WHOLE[:at] + put + WHOLE[at + len(put) :])


def translate(dialect: Ollama, body: bytes) -> None:
    """What is sent to an engine can be read there, but for letters that are none."""
    for path in (*dialect.stream_paths, *dialect.work_paths):
        meant = dialect.translated(path, body)
        if isinstance(meant, Translation):
            assert isinstance(json.loads(meant.body.decode(errors="replace")), dict)


@given(st.sampled_from([b"/api/chat", b"/api/generate"]), VALUES)
def test_any_event_becomes_lines_or_is_the_engines_failure(path: bytes, event: object) -> None:
    dialect = dialect_at(path)
    assert isinstance(dialect, Ollama)
    meant = dialect.translated(path, WHOLE)
    assert isinstance(meant, Translation)
    reply = meant.reply(NOW)
    with suppress(EngineFailed):
        for line in reply.lines(b"data: " + json.dumps(event).encode() + b"\n\n").splitlines():
            assert isinstance(json.loads(line), dict)
    with suppress(EngineFailed):
        assert isinstance(json.loads(reply.whole(json.dumps(event).encode())), dict)

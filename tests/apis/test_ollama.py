"""What Ollama's APIs have in common: errors, blanks for those who wait, bounds for what comes."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.apis.dialects import TRANSLATED, dialect_at
from llamasup.apis.ollama import Ollama
from llamasup.apis.ollama_chat import OllamaChat
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

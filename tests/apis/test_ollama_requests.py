"""Options, formats and images get an engine's words, or are refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llamasup.apis.ollama_requests import Request, content, sampling, schema, understood
from llamasup.errors import ClientError


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

"""A stream that breaks off ends with an error in the form of its own API."""

from __future__ import annotations

import json

import pytest

from llamasup.errors import (
    ChildLost,
    ClientError,
    LlamasupError,
    ModelUnavailable,
    QueueTimeout,
    SlotsExhausted,
)
from llamasup.front.error_events import apology, document, named

ERROR = ChildLost("it broke")


def parsed(event: bytes) -> tuple[str | None, object]:
    """The event's name and its document."""
    assert event.endswith(b"\n\n")
    lines = event.decode().strip().split("\n")
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    (data,) = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return (names[0] if names else None), json.loads(data)


@pytest.mark.parametrize(
    "path", [b"/v1/chat/completions", b"/chat/completions", b"/v1/completions"]
)
def test_a_client_of_openais_completions_gets_an_error_object(path: bytes) -> None:
    assert parsed(apology(path, ERROR)) == (
        None,
        {"error": {"message": "it broke", "type": "server_error", "code": "engine_lost"}},
    )


def test_a_client_of_anthropics_messages_gets_an_error_event() -> None:
    assert parsed(apology(b"/v1/messages", ERROR)) == (
        "error",
        {"type": "error", "error": {"type": "api_error", "message": "it broke"}},
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ClientError("x"), "invalid_request_error"),
        (ModelUnavailable("x"), "overloaded_error"),
        (QueueTimeout("x"), "timeout_error"),
    ],
)
def test_a_client_of_anthropics_messages_learns_of_what_kind_it_is(
    error: LlamasupError, kind: str
) -> None:
    assert parsed(apology(b"/v1/messages", error)) == (
        "error",
        {"type": "error", "error": {"type": kind, "message": "x"}},
    )


def test_a_prefix_of_the_path_does_not_change_the_form() -> None:
    assert apology(b"/llama/v1/completions", ERROR) == apology(b"/v1/completions", ERROR)
    assert apology(b"/llama/completion", ERROR) == apology(b"/completion", ERROR)


@pytest.mark.parametrize("path", [b"/v1/responses", b"/responses"])
def test_a_client_of_openais_responses_gets_an_error_event(path: bytes) -> None:
    name, document = parsed(apology(path, ERROR))
    assert name == "error"
    assert document == {
        "type": "error",
        "code": "engine_lost",
        "message": "it broke",
        "param": None,
    }


@pytest.mark.parametrize("path", [b"/completion", b"/infill", b"/completions"])
def test_a_client_of_llama_cpps_own_api_gets_an_error_with_a_number(path: bytes) -> None:
    assert parsed(apology(path, ERROR)) == (
        None,
        {
            "error": {
                "message": "it broke",
                "type": "server_error",
                "code": 502,
                "reason": "engine_lost",
            }
        },
    )


# --- as a reply ---

FORMS = {
    "openai": {"error": {"message": "x", "type": "server_error", "code": "slots_exhausted"}},
    "anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
    "native": {
        "error": {
            "message": "x",
            "type": "unavailable_error",
            "code": 503,
            "reason": "slots_exhausted",
        }
    },
}


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (b"/v1/chat/completions", "openai"),
        (b"/chat/completions", "openai"),
        (b"/chat/completions/input_tokens", "openai"),
        (b"/prefix/v1/completions", "openai"),
        (b"/v1/responses", "openai"),
        (b"/v1/embeddings", "openai"),
        (b"/nope", "openai"),
        (b"", "openai"),
        (b"/v1/messages", "anthropic"),
        (b"/prefix/v1/messages/count_tokens", "anthropic"),
        (b"/completion", "native"),
        (b"/prefix/completions", "native"),
        (b"/infill", "native"),
        (b"/tokenize", "native"),
        (b"/slots/0", "native"),
        (b"/metrics", "native"),
    ],
)
def test_every_api_has_its_own_form_of_an_error(path: bytes, form: str) -> None:
    assert document(path, SlotsExhausted("x")) == FORMS[form]


# --- the engine's ---

ENGINES = {"code": 400, "message": "no array", "type": "invalid_request_error", "n_ctx": 7}


def engines(**changes: object) -> bytes:
    return json.dumps({"error": {**ENGINES, **changes}}).encode()


def test_what_the_engine_refuses_has_a_code_by_name_and_is_else_as_it_was() -> None:
    better = named(b"/v1/chat/completions", 400, engines())
    assert better is not None
    assert json.loads(better) == {"error": {**ENGINES, "code": "invalid_parameter"}}


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (b"/v1/chat/completions", 400, engines(code="its_own")),
        (b"/v1/chat/completions", 500, engines(code=500)),
        (b"/v1/chat/completions", 404, engines(code=404)),
        (b"/v1/messages", 400, engines()),
        (b"/completion", 400, engines()),
        (b"/v1/chat/completions", 400, b"no JSON"),
        (b"/v1/chat/completions", 400, engines()[:-1]),
        (b"/v1/chat/completions", 400, b"[" * 100_000),
        (b"/v1/chat/completions", 400, b'{"error":"a string"}'),
        (b"/v1/chat/completions", 400, b"7"),
    ],
)
def test_anything_else_is_passed_on_as_it_is(path: bytes, status: int, body: bytes) -> None:
    assert named(path, status, body) is None

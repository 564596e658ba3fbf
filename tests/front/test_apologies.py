"""A stream that breaks off ends with an error in the form of its own API."""

from __future__ import annotations

import json

import pytest

from llamasup.errors import ChildLost, ClientError, LlamasupError, ModelUnavailable, QueueTimeout
from llamasup.front.apologies import apology

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
        {"error": {"message": "it broke", "type": "server_error", "code": 502}},
    )

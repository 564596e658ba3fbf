"""Messages have named events, also for an error, and errors of Anthropic's own kinds."""

from __future__ import annotations

import pytest

from llamasup.apis.anthropic_messages import Messages
from llamasup.errors import (
    ChildLost,
    ClientError,
    LlamasupError,
    ModelUnavailable,
    QueueTimeout,
)
from tests.apis.events import parsed


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ChildLost("x"), "api_error"),
        (ClientError("x"), "invalid_request_error"),
        (ModelUnavailable("x"), "overloaded_error"),
        (QueueTimeout("x"), "timeout_error"),
    ],
)
def test_a_client_learns_of_what_kind_an_error_is(error: LlamasupError, kind: str) -> None:
    document = {"type": "error", "error": {"type": kind, "message": "x"}}
    assert Messages().error_body(error) == document
    assert parsed(Messages().error_event(error)) == ("error", document)


def test_the_engines_errors_have_no_codes_to_correct() -> None:
    assert Messages().corrected(400, b'{"error":{"code":400,"message":"no array"}}') is None


@pytest.mark.parametrize(
    ("kind", "opens"),
    [
        ("message_start", True),
        ("content_block_start", True),
        ("content_block_delta", False),
        ("message_stop", False),
        ("error", False),
    ],
)
def test_the_kind_of_an_event_tells_whether_it_only_opens(kind: str, opens: bool) -> None:
    assert Messages().only_opens({"type": kind}) == opens


def test_a_ping_passes_the_time() -> None:
    assert Messages().passes_the_time({"type": "ping"})
    assert not Messages().passes_the_time({"type": "message_start"})

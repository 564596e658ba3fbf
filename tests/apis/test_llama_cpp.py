"""llama.cpp's own API has numbers for codes, and streams without a word at their end."""

from __future__ import annotations

import pytest

from llamasup.apis.llama_cpp import LlamaCpp
from llamasup.errors import ChildLost, LlamasupError, SlotsExhausted
from tests.apis.events import parsed


@pytest.mark.parametrize(
    ("error", "kind", "code", "reason"),
    [
        (ChildLost("x"), "server_error", 502, "engine_lost"),
        (SlotsExhausted("x"), "unavailable_error", 503, "slots_exhausted"),
    ],
)
def test_an_error_has_a_number_for_a_code_and_our_name_beside_it(
    error: LlamasupError, kind: str, code: int, reason: str
) -> None:
    document = {"error": {"message": "x", "type": kind, "code": code, "reason": reason}}
    assert LlamaCpp().error_body(error) == document
    assert parsed(LlamaCpp().error_event(error)) == (None, document)


def test_the_engines_errors_are_as_they_should_be() -> None:
    assert LlamaCpp().corrected(400, b'{"error":{"code":400,"message":"no array"}}') is None


def test_progress_passes_the_time() -> None:
    assert LlamaCpp().passes_the_time({"content": "", "prompt_progress": {"processed": 1}})
    assert not LlamaCpp().passes_the_time({"content": "a", "prompt_progress": None})


@pytest.mark.parametrize(
    ("document", "opens"),
    [
        ({"content": "", "stop": False}, True),
        ({"content": "a", "stop": False}, False),
        ({"content": "", "stop": True}, False),
        ({"content": "", "stop": False, "error": {"message": "no"}}, False),
    ],
)
def test_no_content_only_opens(document: object, opens: bool) -> None:
    assert LlamaCpp().only_opens(document) == opens


@pytest.mark.parametrize("path", [b"/slots", b"/slots/0", b"/prefix/slots/12", b"/slots/x"])
def test_the_slots_are_its_own(path: bytes) -> None:
    assert LlamaCpp().speaks_at(path)

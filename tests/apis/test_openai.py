"""Errors in the form of OpenAI's: llamasup's own, and those of engines, whose codes are numbers."""

from __future__ import annotations

import json

import pytest

from llamasup.apis.openai import OpenAI
from llamasup.errors import ChildLost, SlotsExhausted
from tests.apis.events import parsed

ENGINES = {"code": 400, "message": "no array", "type": "invalid_request_error", "n_ctx": 7}


def engines(**changes: object) -> bytes:
    return json.dumps({"error": {**ENGINES, **changes}}).encode()


def test_an_error_is_an_object_with_a_code_by_name() -> None:
    assert OpenAI().error_body(SlotsExhausted("x")) == {
        "error": {"message": "x", "type": "server_error", "code": "slots_exhausted"}
    }


def test_a_stream_ends_with_the_same_object() -> None:
    assert parsed(OpenAI().error_event(ChildLost("it broke"))) == (
        None,
        {"error": {"message": "it broke", "type": "server_error", "code": "engine_lost"}},
    )


def test_what_the_engine_refuses_has_a_code_by_name_and_is_else_as_it_was() -> None:
    better = OpenAI().corrected(400, engines())
    assert better is not None
    assert json.loads(better) == {"error": {**ENGINES, "code": "invalid_parameter"}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, engines(code="its_own")),
        (500, engines(code=500)),
        (404, engines(code=404)),
        (400, b"no JSON"),
        (400, engines()[:-1]),
        (400, b"[" * 100_000),
        (400, b'{"error":"a string"}'),
        (400, b"7"),
    ],
)
def test_anything_else_is_passed_on_as_it_is(status: int, body: bytes) -> None:
    assert OpenAI().corrected(status, body) is None

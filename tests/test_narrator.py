"""Every event that the log has a line for is told in it, in words, and goes along with them."""

from __future__ import annotations

import logging

import attrs
import pytest

from llamasup import narrator
from llamasup.events import (
    AnswerCut,
    By,
    Evicted,
    Ready,
    Reason,
    RequestRefused,
    SteppedDown,
)

EXAMPLES = {
    "str": "words",
    "int": 7,
    "float": 1.5,
    "bool": True,
    "tuple[str, ...]": ("a", "b"),
    "Reason": Reason.PLACE,
    "By": By.FILE,
}


@pytest.mark.parametrize("kind", narrator.HEARD, ids=lambda kind: kind.__name__)
def test_every_kind_has_a_line(kind: type, caplog: pytest.LogCaptureFixture) -> None:
    event = kind(**{field.name: EXAMPLES[str(field.type)] for field in attrs.fields(kind)})
    with caplog.at_level(logging.INFO):
        narrator.narrate(event)
    record = caplog.records[0]
    assert record.getMessage()
    assert record.__dict__["event"] == event


@pytest.mark.parametrize(
    ("event", "level", "line"),
    [
        (
            Ready("m", "m#1", 1.234, "8192 tokens"),
            "INFO",
            "m#1 is ready after 1.23 s (8192 tokens)",
        ),
        (
            SteppedDown("m", "no KV cache", "4096 tokens"),
            "WARNING",
            "m: out of memory (no KV cache): next rung, 4096 tokens",
        ),
        (Evicted("m", Reason.PLACE, "n"), "INFO", "m is unloaded: n needs its place"),
        (Evicted("m", Reason.IDLE), "INFO", "m is unloaded: it has not been used for a while"),
        (
            Evicted("m", Reason.CLIENT),
            "INFO",
            "m is unloaded: its last client does not need it any more",
        ),
        (
            RequestRefused("id", "::1", "POST", "/v1/x", 404, "not_found", "there is nothing"),
            "INFO",
            "POST /v1/x: 404 there is nothing",
        ),
        (AnswerCut("id", "it died", told=False), "WARNING", "an answer was cut: it died"),
    ],
)
def test_lines_say_what_happened(
    event: object, level: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        narrator.narrate(event)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (level, line)


def test_a_line_break_of_a_client_begins_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    forged = 'there is no model "x\n2026-01-01 ERROR all models are gone"'
    narrator.narrate(RequestRefused("id", "::1", "POST", "/v1/x", 404, "model_not_found", forged))
    assert len(caplog.records) == 1

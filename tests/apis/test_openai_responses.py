"""Responses have named events, also for an error."""

from __future__ import annotations

import pytest

from llamasup.apis.openai_responses import Responses
from llamasup.errors import ChildLost
from tests.apis.events import parsed


def test_an_error_is_an_event_by_its_name() -> None:
    assert parsed(Responses().error_event(ChildLost("it broke"))) == (
        "error",
        {"type": "error", "code": "engine_lost", "message": "it broke", "param": None},
    )


@pytest.mark.parametrize(
    ("kind", "opens"),
    [
        ("response.created", True),
        ("response.in_progress", True),
        ("response.output_item.added", True),
        ("response.content_part.added", True),
        ("response.output_text.delta", False),
        ("response.completed", False),
        ("error", False),
    ],
)
def test_the_kind_of_an_event_tells_whether_it_only_opens(kind: str, opens: bool) -> None:
    assert Responses().only_opens({"type": kind}) == opens

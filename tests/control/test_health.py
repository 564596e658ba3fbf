"""Health tells what is loaded or fails; readiness whether anything can be served."""

from __future__ import annotations

import pytest

from llamasup.control.health import health, readiness
from llamasup.states import KeeperState


def test_only_models_that_do_something_or_failed_are_told_of() -> None:
    states = [(state.name.lower(), state) for state in KeeperState]
    assert health(states) == {
        "status": "ok",
        "loaded_models": ["ready", "leaving"],
        "models": {
            "loading": "loading",
            "waiting": "loading",
            "ready": "loaded",
            "failed": "failed",
            "overtaken": "loading",
            "leaving": "loaded",
        },
    }


@pytest.mark.parametrize(
    ("is_stopping", "fault", "status", "word"),
    [
        (False, "", 200, "ok"),
        (True, "", 503, "stopping"),
        (False, "no program", 503, "engine unusable"),
        (True, "no program", 503, "stopping"),
    ],
)
def test_what_can_serve_nothing_is_not_ready(
    is_stopping: bool, fault: str, status: int, word: str
) -> None:
    answered, document = readiness(is_stopping, fault)
    assert (answered, document["status"]) == (status, word)
    assert bool(document.get("why")) is (status == 503)

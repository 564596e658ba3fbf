"""What `/health`, `/livez` and `/readyz` answer. Pure.

A model that is not loaded is no reason to be unready: its first request loads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llamasup.control.listing import in_a_word
from llamasup.states import HAS_CHILD, KeeperState

ALIVE = {"status": "ok"}


def health(states: Iterable[tuple[str, KeeperState]]) -> dict[str, Any]:
    """That llamasup lives, which models are loaded, and how those stand that do anything, or
    failed. All others are unloaded: there may be thousands."""
    astir = {name: state for name, state in states if state is not KeeperState.UNLOADED}
    return ALIVE | {
        "loaded_models": [name for name, state in astir.items() if state in HAS_CHILD],
        "models": {name: in_a_word(state) for name, state in astir.items()},
    }


def readiness(is_stopping: bool, engine_fault: str) -> tuple[int, dict[str, Any]]:
    """Whether anything can be served, as a status and a document."""
    if is_stopping:
        return 503, {"status": "stopping", "why": "llamasup is stopping"}
    if engine_fault:
        return 503, {"status": "engine unusable", "why": engine_fault}
    return 200, ALIVE

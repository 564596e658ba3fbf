"""The states of a child and of a keeper, and which may follow which.

A child, one incarnation of a llama-server:

    STARTING ──► READY ──► RETIRING ──► STOPPING ──► GONE
        ├──────────┴──────────────────────▲            ▲
        └──────────────────────────────────────────────┘   (the program could not be run)

A keeper, which owns one model's children over time:

    UNLOADED ──► LOADING ──► READY ──► UNLOADED
                  │   ▲ └──► FAILED ──► LOADING
                  ▼   │
                 WAITING ──► FAILED or UNLOADED

A leaf module, so that every room can name a state without importing who is in it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeVar


class ChildState(Enum):
    """Where one llama-server process is in its life."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    """It admits no more requests; those that it has may finish."""

    STOPPING = "stopping"
    GONE = "gone"


class KeeperState(Enum):
    """What a model's keeper can offer a request."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    WAITING = "waiting for room"
    """Others have to go first, or to end their turns."""

    READY = "ready"
    FAILED = "failed"


_FOLLOWS: Final[dict[Enum, frozenset[Enum]]] = {
    ChildState.STARTING: frozenset({ChildState.READY, ChildState.STOPPING, ChildState.GONE}),
    ChildState.READY: frozenset({ChildState.RETIRING, ChildState.STOPPING}),
    ChildState.RETIRING: frozenset({ChildState.STOPPING}),
    ChildState.STOPPING: frozenset({ChildState.GONE}),
    ChildState.GONE: frozenset(),
    KeeperState.UNLOADED: frozenset({KeeperState.LOADING}),
    KeeperState.LOADING: frozenset(
        {KeeperState.WAITING, KeeperState.READY, KeeperState.FAILED, KeeperState.UNLOADED}
    ),
    KeeperState.WAITING: frozenset({KeeperState.LOADING, KeeperState.FAILED, KeeperState.UNLOADED}),
    KeeperState.READY: frozenset({KeeperState.UNLOADED}),
    KeeperState.FAILED: frozenset({KeeperState.LOADING}),
}

S = TypeVar("S", ChildState, KeeperState)


def moved(state: S, to: S) -> S:
    """`to`, if it may follow `state`; anything else is a mistake of ours (AssertionError)."""
    if to not in _FOLLOWS[state]:
        raise AssertionError(f"{state} cannot be followed by {to}")
    return to

"""The states of a child and of a keeper, and which may follow which.

A child, one incarnation of a llama-server:

    STARTING ──► READY ──► RETIRING ──► STOPPING ──► GONE
        ├──────────┴──────────────────────▲            ▲
        └──────────────────────────────────────────────┘   (the program could not be run)

A keeper, which owns one model's children over time; its state is that of its last load:

    UNLOADED ──► LOADING ──► READY ──► UNLOADED or FAILED
                  │   ▲ └──► FAILED ──► LOADING
                  ▼   │
                 WAITING ──► UNLOADED or FAILED

and when the model gets another plan while the keeper loads, waits or is ready:

    LOADING or WAITING ──► OVERTAKEN ──► LEAVING ──► UNLOADED
    READY ──► LEAVING          └────────────────────────▲

This module imports nothing of ours, so that every room can name a state.
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
    """Other models have to be unloaded first, or to end their turns."""

    READY = "ready"
    FAILED = "failed"
    OVERTAKEN = "overtaken"
    """The model has a new plan. A load by the old one goes on, but will serve no new request."""

    LEAVING = "leaving"
    """The model has a new plan. The child of the old one finishes the requests that it has."""

    @property
    def shown(self) -> str:
        """The state as clients and operators see it: to them it matters only if there is a
        child."""
        return _SHOWN_AS.get(self, self).value


_SHOWN_AS: Final = {
    KeeperState.OVERTAKEN: KeeperState.LOADING,
    KeeperState.LEAVING: KeeperState.READY,
}

HAS_CHILD: Final = frozenset({KeeperState.READY, KeeperState.LEAVING})
AT_REST: Final = frozenset({KeeperState.UNLOADED, KeeperState.FAILED})
"""There is no child, and none is loading."""

OUT_OF_DATE: Final = frozenset({KeeperState.OVERTAKEN, KeeperState.LEAVING})
"""The model has a new plan, and the next load follows that."""

_FOLLOWS: Final[dict[Enum, frozenset[Enum]]] = {
    ChildState.STARTING: frozenset({ChildState.READY, ChildState.STOPPING, ChildState.GONE}),
    ChildState.READY: frozenset({ChildState.RETIRING, ChildState.STOPPING}),
    ChildState.RETIRING: frozenset({ChildState.STOPPING}),
    ChildState.STOPPING: frozenset({ChildState.GONE}),
    ChildState.GONE: frozenset(),
    KeeperState.UNLOADED: frozenset({KeeperState.LOADING}),
    KeeperState.LOADING: frozenset(
        {
            KeeperState.WAITING,
            KeeperState.READY,
            KeeperState.FAILED,
            KeeperState.UNLOADED,
            KeeperState.OVERTAKEN,
        }
    ),
    KeeperState.WAITING: frozenset(
        {
            KeeperState.LOADING,
            KeeperState.FAILED,
            KeeperState.UNLOADED,
            KeeperState.OVERTAKEN,
        }
    ),
    KeeperState.READY: frozenset({KeeperState.UNLOADED, KeeperState.FAILED, KeeperState.LEAVING}),
    KeeperState.OVERTAKEN: frozenset({KeeperState.LEAVING, KeeperState.UNLOADED}),
    KeeperState.LEAVING: frozenset({KeeperState.UNLOADED}),
    KeeperState.FAILED: frozenset({KeeperState.LOADING}),
}

S = TypeVar("S", ChildState, KeeperState)


def moved(state: S, to: S) -> S:
    """`to`, if it may follow `state`; anything else is a mistake of ours (AssertionError)."""
    if to not in _FOLLOWS[state]:
        raise AssertionError(f"{state} cannot be followed by {to}")
    return to

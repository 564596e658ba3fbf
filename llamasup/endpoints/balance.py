"""Which instance answers a request: a choice among those that have room for it. Pure.

First decides the operator's priority; then where the model is, because loading takes longest; then
the conversation, whose beginning one instance may still have in its cache; and then the balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from hashlib import blake2b
from typing import Final, Literal

from attrs import frozen

Balance = Literal["least-connections", "round-robin", "priority"]


class Where(Enum):
    """How near a model is to answering on an instance; the nearest has the lowest number."""

    LOADED = 0
    LOADS = 1
    """It loads already, or waits for its place."""

    FITS = 2
    """It can be loaded without unloading another one."""

    EVICTS = 3
    """Other models would be unloaded for it."""

    CANNOT = 4
    """It cannot be loaded there now."""


@frozen
class Candidate:
    """An instance that offers the model."""

    name: str
    room: float
    """How many more requests it would work on at once."""

    priority: int = 0
    in_flight: int = 0
    where: Where = Where.LOADED
    cost: int = 0
    """How much would be unloaded there for the model, in bytes."""


_NO_PREFIX: Final = b""


def choose(
    candidates: Sequence[Candidate],
    balance: Balance = "least-connections",
    turn: int = 0,
    prefix: bytes = _NO_PREFIX,
) -> Candidate | None:
    """The candidate for the next request; None if it has to wait for one of them.

    While the model is loaded somewhere, and all its slots there are busy, another one is loaded
    where it fits; but nothing is unloaded for it. `turn` counts requests, and `prefix` stands for
    the beginning of the conversation.
    """
    is_there = any(candidate.where in (Where.LOADED, Where.LOADS) for candidate in candidates)
    usable = [
        candidate
        for candidate in candidates
        if candidate.room > 0
        and candidate.where is not Where.CANNOT
        and not (is_there and candidate.where is Where.EVICTS)
    ]
    if not usable:
        return None
    best = min(_rank(candidate) for candidate in usable)
    equals = [candidate for candidate in usable if _rank(candidate) == best]
    if len(equals) == 1:
        return equals[0]
    if prefix:
        return max(equals, key=lambda candidate: _weight(candidate.name, prefix))
    match balance:
        case "priority":
            return equals[0]
        case "round-robin":
            return equals[turn % len(equals)]
        case "least-connections":
            start = turn % len(equals)
            in_turn = equals[start:] + equals[:start]
            return min(in_turn, key=_load)


def is_free_elsewhere(here: Candidate, all_: Sequence[Candidate], promised: int) -> bool:
    """Would a request that waits `here` for its model find it loaded and free on another one?

    So many free slots are `promised` to other requests.
    """
    nearer = [
        candidate.room
        for candidate in all_
        if candidate.where is Where.LOADED and candidate.priority >= here.priority
    ]
    return here.where is not Where.LOADED and sum(room for room in nearer if room > 0) > promised


def _rank(candidate: Candidate) -> tuple[int, int, int]:
    return -candidate.priority, candidate.where.value, candidate.cost


def _load(candidate: Candidate) -> float:
    """The part of its room that is taken."""
    return candidate.in_flight / (candidate.in_flight + candidate.room)


def _weight(name: str, prefix: bytes) -> bytes:
    """Rendezvous hashing: when an instance comes or goes, only its own conversations move."""
    return blake2b(prefix + name.encode(), digest_size=8).digest()

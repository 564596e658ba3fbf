"""Where one request has been: the instances elsewhere that did not answer it. Pure."""

from __future__ import annotations

from typing import Final

from attrs import define, field

MOST_FAILURES: Final = 3
"""Instances that one request may lose while they have it. The request itself may be what ends
them, and must not end a whole fleet."""


MOST_MOVES: Final = 4
"""How often a request may be sent on because its model was not where it was expected."""

MOST_RECALLS: Final = 2
"""How often a request may be taken back from an instance that still loads its model."""


@define
class Trail:
    """One request's trail. Instances are known by name."""

    tried: set[str] = field(factory=set)
    """They refused it, or gave no answer: others come first."""

    failures: int = 0
    """How many took it and gave no answer."""

    moves: int = 0
    """How often its model was not where it was expected."""

    recalls: int = 0
    """How often it was taken back, as its model was free elsewhere."""

    @property
    def is_too_long(self) -> bool:
        """Is it time to give up?"""
        return self.failures >= MOST_FAILURES

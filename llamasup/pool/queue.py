"""Who waits for a slot of one model, and who is next. Pure.

The higher priority goes first; within one the keys (clients) take turns, so that one who sends a
hundred requests delays another's only request by one; within a key it is first come, first served.
Who leaves the queue early costs nobody a turn.

Joining, taking the next and leaving cost the same however many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeAlias, TypeVar

from attrs import frozen

T = TypeVar("T")


class Crowded(Exception):
    """As many wait as may wait."""


@frozen(eq=False)
class Ticket(Generic[T]):
    """One place in a queue."""

    item: T
    key: str
    priority: int


# An OrderedDict, because a dict gets slow when its first entries are deleted again and again.
_Line: TypeAlias = OrderedDict[Ticket[T], None]
_Turns: TypeAlias = OrderedDict[str, _Line[T]]


class FairQueue(Generic[T]):
    """At most `size` items that wait."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._length = 0
        self._turns: dict[int, _Turns[T]] = {}
        """By priority: the keys that have somebody waiting, whose turn is next at the front."""

    def __len__(self) -> int:
        return self._length

    def push(self, item: T, key: str, priority: int = 0) -> Ticket[T]:
        """Join the queue. Raises Crowded."""
        if self._length >= self.size:
            raise Crowded
        ticket = Ticket(item, key, priority)
        turns = self._turns.setdefault(priority, OrderedDict())
        turns.setdefault(key, OrderedDict())[ticket] = None
        self._length += 1
        return ticket

    def pop(self) -> T:
        """Take out whoever is next. Raises IndexError if nobody waits."""
        if not self._length:
            raise IndexError("pop from an empty queue")
        turns = self._turns[max(self._turns)]
        key, line = next(iter(turns.items()))
        ticket = next(iter(line))
        turns.move_to_end(key)
        self.remove(ticket)
        return ticket.item

    def remove(self, ticket: Ticket[T]) -> None:
        """Leave the queue. Raises KeyError for a ticket that is not in it, or not any more."""
        turns = self._turns[ticket.priority]
        line = turns[ticket.key]
        del line[ticket]
        self._length -= 1
        if not line:
            del turns[ticket.key]
        if not turns:
            del self._turns[ticket.priority]

    def position(self, ticket: Ticket[T]) -> int:
        """How many will be taken before it, if nobody else comes or leaves.

        For people to look at: it counts the keys, and those of its own key who came before it.
        """
        turns = self._turns[ticket.priority]
        rounds = list(turns[ticket.key]).index(ticket)
        before = rounds
        own_turn_is_over = False
        for key, line in turns.items():
            if key == ticket.key:
                own_turn_is_over = True
            else:
                before += min(len(line), rounds + (not own_turn_is_over))
        higher = (turns for priority, turns in self._turns.items() if priority > ticket.priority)
        return before + sum(len(line) for turns in higher for line in turns.values())

"""The requests that wait for one model: which is next, and which is refused when too many wait.
Pure.

The places that requests come from take turns; at each place the keys that they come with take
turns; and the requests of one key are served in the order in which they came. So a client that
sends a hundred requests delays the only request of another client by one, and a hundred invented
keys are worth no more than one. (Only clients at the same place have to wait for each of these
keys: behind a proxy on this machine all clients have one place.)

A client may call any request urgent. So at each of these levels at most every other turn goes to
the most urgent requests, and the turn after it ignores urgency. Thereby a request waits at most
twice as long as without urgent ones.

Where it is wished, the next turn is that of the place that has used least lately; among those that
have used the same, turns are taken as ever. How much each has used is an argument.

When too many wait, the last request of the longest line is refused, and not the one that comes.

Joining, taking the next and leaving take the same time however many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar, cast

from attrs import frozen

from llamasup.config.schema import PoolSettings
from llamasup.errors import QueueFull, SlotsExhausted
from llamasup.pool.tally import Tally

T = TypeVar("T")


Used = Callable[[Hashable], float]
"""How much a place has used lately."""


class Crowded(Exception):
    """The queue is full, and no client has more requests in it than the client of the new one."""


def full(settings: PoolSettings, words: str) -> QueueFull:
    """The error for a request that finds no place in a queue, with the status that is wished."""
    exhausted = settings.queue_full_status == SlotsExhausted.status
    kind = SlotsExhausted if exhausted else QueueFull
    return kind(f"{words}; ask again later")


@frozen
class Client:
    """The sender of a request: the place that it comes from, and the key that it came with. A valid
    key is a place of its own."""

    place: str = ""
    key: str = ""


@frozen(eq=False)
class Ticket(Generic[T]):
    """One place in a queue."""

    item: T
    client: Client
    priority: int


class _Turns:
    """Members that take turns: places, the keys of a place, or the tickets of a key."""

    def __init__(self) -> None:
        # OrderedDicts: a dict gets slow when its first entries are deleted again and again.
        self.members: OrderedDict[Hashable, _Turns] = OrderedDict()
        """In the order of their turns."""

        self.tally = Tally[Hashable]()
        """How many tickets each member has."""

        self._by_priority: dict[int, OrderedDict[Hashable, int]] = {}
        """For each priority: the members that have such tickets, in the order of their turns, and
        how many they have."""

        self._urgent_had_the_last = False

    def add(self, priority: int, name: Hashable, *below: Hashable) -> None:
        self.tally.add(name)
        having = self._by_priority.setdefault(priority, OrderedDict())
        having[name] = having.get(name, 0) + 1
        if name not in self.members:
            self.members[name] = _Turns() if below else _NO_MEMBERS
        if below:
            self.members[name].add(priority, *below)

    def remove(self, priority: int, name: Hashable, *below: Hashable) -> None:
        """Remove a ticket. Raises KeyError for one that is not there, and then changes nothing."""
        if below:
            self.members[name].remove(priority, *below)
        self.tally.take(name)
        having = self._by_priority[priority]
        having[name] -= 1
        if not having[name]:
            del having[name]
        if not having:
            del self._by_priority[priority]
        if not self.tally[name]:
            del self.members[name]

    def next(self, used: Used | None = None) -> Hashable:
        """The ticket whose turn it is. The turn of its key and its place is over then, too."""
        name = self._whose_turn(used)
        self.members.move_to_end(name)
        for having in self._by_priority.values():
            if name in having:
                having.move_to_end(name)
        member = self.members[name]
        return member.next() if member.members else name

    def _whose_turn(self, used: Used | None) -> Hashable:
        members: Iterable[Hashable] = self.members
        is_urgent = not self._urgent_had_the_last and len(self._by_priority) > 1
        self._urgent_had_the_last = is_urgent
        if is_urgent:
            members = self._by_priority[max(self._by_priority)]
        return next(iter(members)) if used is None else min(members, key=used)

    def before(self, own: Hashable, rounds: int) -> int:
        """How many tickets of other members come before a ticket of `own`, if `rounds` tickets of
        `own` come before it."""
        before = 0
        own_turn_is_over = False
        for name in self.members:
            if name == own:
                own_turn_is_over = True
            else:
                before += min(self.tally[name], rounds + (not own_turn_is_over))
        return before


_NO_MEMBERS = _Turns()
"""What tickets have as members."""


class FairQueue(Generic[T]):
    """At most `size` items that wait."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._length = 0
        self._places = _Turns()

    def __len__(self) -> int:
        return self._length

    def push(self, item: T, client: Client, priority: int = 0) -> Ticket[T]:
        """Join the queue. Raises Crowded if there is no place left; see `displace`."""
        if self._length >= self.size:
            raise Crowded
        ticket = Ticket(item, client, priority)
        self._places.add(priority, client.place, client.key, ticket)
        self._length += 1
        return ticket

    def displace(self, client: Client) -> T:
        """Take out the item that has to make way for a request of `client`.

        Raises Crowded if no line would be longer than that of `client`.
        """
        if not self._length:
            raise Crowded
        place = _longest(self._places.tally, client.place)
        keys = self._places.members.get(place)
        if keys is None:
            raise Crowded
        key = next(reversed(keys.tally.leaders))
        if place == client.place and _longest(keys.tally, client.key) == client.key:
            raise Crowded
        ticket = cast(Ticket[T], next(reversed(keys.members[key].members)))
        self.remove(ticket)
        return ticket.item

    def pop(self, used: Used | None = None) -> T:
        """Take out the next item; with `used`, one of the place that has used least, and then this
        takes longer the more places there are. Raises IndexError if none waits."""
        if not self._length:
            raise IndexError("pop from an empty queue")
        ticket = cast(Ticket[T], self._places.next(used))
        self.remove(ticket)
        return ticket.item

    def remove(self, ticket: Ticket[T]) -> None:
        """Take this ticket out. Raises KeyError if it is not in the queue."""
        self._places.remove(ticket.priority, ticket.client.place, ticket.client.key, ticket)
        self._length -= 1

    def position(self, ticket: Ticket[T]) -> int:
        """How many will be taken before this one, if no other comes or leaves, and none is urgent.

        It is only shown to people, as it takes longer the more places, keys and tickets there are.
        """
        keys = self._places.members[ticket.client.place]
        line = keys.members[ticket.client.key]
        in_line = list(line.members).index(ticket)
        at_its_place = in_line + keys.before(ticket.client.key, in_line)
        return at_its_place + self._places.before(ticket.client.place, at_its_place)


def _longest(lines: Tally[Hashable], own: Hashable) -> Hashable:
    """The name with the longest line once `own` has one more: `own`, if no other is longer."""
    longest = next(reversed(lines.leaders), own)
    return longest if lines[longest] > lines[own] + 1 else own

"""How many computed tokens each client used lately; it decides who goes first (`pool.fair`). Pure:
now is an argument.

What was used counts half as much after each `HALF_LIFE`. So a client that had much waits, but not
for long: a hundred times as much is forgotten after seven half-lives. A request in flight counts as
much as an average one: else a client that had nothing yet would get all slots at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

HALF_LIFE: Final = 120.0
"""Seconds."""

_MOST: Final = 4096
"""Clients. When there are more, those that used least are forgotten."""

_WEIGHT_OF_THE_NEWEST: Final = 0.1
"""In the average of all requests."""

_MOST_HALF_LIVES: Final = 500.0
"""After so many, all numbers are scaled down: floats end at 2 to the power of 1,023."""


class Consumption:
    """What clients used. Instead of all the old numbers shrinking, each new one is larger."""

    def __init__(self) -> None:
        self._used: dict[Hashable, float] = {}
        self._in_flight: dict[Hashable, int] = {}
        self._average = 1.0
        self._origin = 0.0
        """When a token counted as 1."""

    def __len__(self) -> int:
        return len(self._used)

    def add(self, client: Hashable, tokens: int, now: float) -> None:
        """A request of this client has taken so many tokens."""
        self._average += _WEIGHT_OF_THE_NEWEST * (tokens - self._average)
        worth = self._worth(now)
        self._used[client] = self._used.get(client, 0.0) + tokens * worth
        if len(self._used) > 2 * _MOST:
            self._forget_the_least()

    def begin(self, client: Hashable) -> None:
        """A request of this client is in flight, until `end`."""
        self._in_flight[client] = self._in_flight.get(client, 0) + 1

    def end(self, client: Hashable) -> None:
        """A request of this client is not in flight any more."""
        left = self._in_flight[client] - 1
        if left:
            self._in_flight[client] = left
        else:
            del self._in_flight[client]

    def at(self, now: float) -> Callable[[Hashable], float]:
        """How much a client has used: numbers that can be compared with each other."""
        each = max(self._average, 1.0) * self._worth(now)
        used, in_flight = self._used, self._in_flight
        return lambda client: used.get(client, 0.0) + in_flight.get(client, 0) * each

    def _worth(self, now: float) -> float:
        """How much a token counts now."""
        age = (now - self._origin) / HALF_LIFE
        if age > _MOST_HALF_LIVES:
            self._used = {client: used * 2**-age for client, used in self._used.items()}
            self._origin, age = now, 0.0
        return float(2**age)

    def _forget_the_least(self) -> None:
        most = sorted(self._used, key=self._used.__getitem__, reverse=True)[:_MOST]
        self._used = {client: self._used[client] for client in most}

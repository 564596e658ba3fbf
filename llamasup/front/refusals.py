"""Which refusals are logged: a client that is refused all the time must not fill the disk.

Pure: now is an argument. For each client ten are logged at once, and then one a second. The others
are counted, and the count is logged with the next one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from attrs import define

AT_ONCE: Final = 10
EVERY: Final = 1.0
MOST_CLIENTS: Final = 1024
_FORGOTTEN_AFTER: Final = AT_ONCE * EVERY


@define
class _Client:
    left: float
    since: float
    untold: int = 0


class Refusals:
    """How many refusals of each client were logged lately."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def told(self, client: str, now: float) -> bool:
        """Should this refusal be logged?"""
        known = self._clients.setdefault(client, _Client(AT_ONCE, now))
        self._clients.move_to_end(client)
        known.left = min(known.left + (now - known.since) / EVERY, AT_ONCE)
        known.since = now
        if known.left < 1:
            known.untold += 1
            return False
        known.left -= 1
        return True

    def untold(self, client: str, now: float) -> list[tuple[str, int]]:
        """How many refusals were only counted: of `client`, and of clients that ask no more."""
        counted = [(client, self._clients[client])] if client in self._clients else []
        while self._clients and (
            len(self._clients) > MOST_CLIENTS
            or now - next(iter(self._clients.values())).since > _FORGOTTEN_AFTER
        ):
            counted.append(self._clients.popitem(last=False))
        found = {name: known.untold for name, known in counted if known.untold}
        for _, known in counted:
            known.untold = 0
        return list(found.items())

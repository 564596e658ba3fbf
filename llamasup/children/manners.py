"""How llama-servers and other servers differ, once they run: how to ask whether one is well, what
its log means, and what its end and its errors tell.

Of another server nothing is understood but HTTP and its exit status: its words may be a client's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from attrs import frozen

from llamasup.children import probe
from llamasup.config.addresses import Address
from llamasup.engine.failures import (
    Cause,
    Heard,
    explain,
    explain_by_status,
    explain_death,
    verdict_on_reply,
)
from llamasup.engine.loglines import Event, Line
from llamasup.upstream import Verdict

_HEALTH = "/health"
_SLOTS = "/slots"


class Manners(ABC):
    """The manners of one kind of server."""

    slots_page: ClassVar[str] = ""
    """The page that changes while the server works; "" if there is none."""

    ends_with_stdin: ClassVar[bool] = False
    """Does the server end by itself when its stdin does?"""

    log_shows_progress: ClassVar[bool] = False
    """While it starts, at least. Another server may write a line whenever we ask whether it is
    ready."""

    has_rungs: ClassVar[bool] = False
    """Can it be started with less, when memory has run out?"""

    @property
    @abstractmethod
    def proof(self) -> str:
        """What proves that it is ready, in words."""

    @abstractmethod
    async def look(self, address: Address) -> bool:
        """Is it well, or ready? Raises NoAnswer and NotAsked. The caller bounds the time."""

    def understood(self, events: Sequence[Event]) -> Sequence[Event]:
        """Those of the events in its log that mean something."""
        return [event for event in events if isinstance(event, Line)]

    def why_not_started(self, status: int | None, lines: Sequence[str]) -> Cause:
        """Why it has ended before it was ready."""
        return explain_by_status(status, lines)

    def why_dead(self, status: int | None, heard: Iterable[Heard], now: float) -> Cause:
        """Why it has ended after it was ready. Its last words may be a client's."""
        return explain_by_status(status, ())

    def verdict(self, status: int, message: str, size: int) -> Verdict:
        """What an error with this message means, for a request with a body of `size` bytes."""
        return Verdict.ITS_OWN


@frozen
class LlamaServer(Manners):
    """A llama-server. Some forks know no /health, so any answer will do that is no 5xx."""

    slots_page = _SLOTS
    ends_with_stdin = True
    log_shows_progress = True
    has_rungs = True

    @property
    def proof(self) -> str:
        """See Manners."""
        return f"GET {_HEALTH} says so"

    async def look(self, address: Address) -> bool:
        """See Manners."""
        status, _ = await probe.ask(address, _HEALTH)
        return status < 500

    def understood(self, events: Sequence[Event]) -> Sequence[Event]:
        """See Manners."""
        return events

    def why_not_started(self, status: int | None, lines: Sequence[str]) -> Cause:
        """See Manners."""
        return explain(status, lines)

    def why_dead(self, status: int | None, heard: Iterable[Heard], now: float) -> Cause:
        """See Manners."""
        return explain_death(status, heard, now)

    def verdict(self, status: int, message: str, size: int) -> Verdict:
        """See Manners."""
        return verdict_on_reply(status, message, size)


LLAMA_SERVER: Final = LlamaServer()


@frozen
class OtherServer(Manners):
    """Any other server. It is ready when its health page is fetched; without one, when its port or
    socket accepts."""

    health: str = ""

    @property
    def proof(self) -> str:
        """See Manners."""
        if self.health:
            return f"GET {self.health} succeeds"
        return "it accepts connections where it was told to listen"

    async def look(self, address: Address) -> bool:
        """See Manners."""
        if not self.health:
            await probe.reach(address)
            return True
        status, _ = await probe.ask(address, self.health)
        return status < 400

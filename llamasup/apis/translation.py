"""A request of an API that no engine speaks, in an engine's words; and the way back. Pure.

The dialect of the client's path makes a `Translation` of a request's body. Its `reply` is made anew
for each engine that answers, because it remembers what has come of the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from attrs import frozen

from llamasup.errors import EngineFailed

LONGEST_EVENT: Final = 8 << 20
"""Bytes of one event. An engine's event has a word of the answer, or a whole tool call."""


@frozen
class Moment:
    """What an answer says about itself, and no engine knows."""

    model: str
    created_at: str
    """When the answer began, as RFC 3339 has it."""

    waited: float = 0.0
    """Seconds that the request waited for its model and for a slot."""


class Reply(ABC):
    """An engine's answer in the client's API."""

    @abstractmethod
    def whole(self, body: bytes) -> bytes:
        """The body of a whole answer. Raises EngineFailed if it cannot be understood."""

    def __init__(self) -> None:
        self.ended = False
        """Was the last line of the stream written?"""

        self.error = ""
        """The engine's error, if the stream ended with one."""

        self._part = bytearray()

    def lines(self, events: bytes) -> bytes:
        """What follows for the client from the next bytes of the engine's stream. They may begin
        and end anywhere.

        Raises EngineFailed if they cannot be understood.
        """
        end = events.rfind(b"\n") + 1
        whole = self._part + events[:end] if end else b""
        if end:
            self._part.clear()
        self._part += events[end:]
        if len(self._part) > LONGEST_EVENT:
            raise EngineFailed("an event of the engine's answer has no end")
        told = bytearray()
        for data in _data(whole.split(b"\n")):
            if not self.ended:
                told += b"".join(self._told(data))
        return bytes(told)

    def _told(self, data: bytes) -> Iterator[bytes]:
        """The lines for the client that follow from one event's data. Sets `ended`."""
        raise EngineFailed("the engine answered with a stream, and was not asked for one")


def _data(lines: Iterable[bytes | bytearray]) -> Iterator[bytes]:
    """The data of the events in these lines: an engine writes each event's into one line."""
    for line in lines:
        field, colon, value = line.partition(b":")
        if colon and field in (b"data", b"error"):
            yield bytes(value.strip())


@frozen
class Translation:
    """One request, as an engine is asked."""

    target: bytes
    """The engine's path, for which there is a dialect, too."""

    body: bytes
    streams: bool
    reply: Callable[[Moment], Reply]
    unloads: bool = False
    """Does the client want the model unloaded after the answer?"""


@frozen
class Residence:
    """A request that asks for no answer: the model is to be loaded, or to be unloaded."""

    loads: bool
    document: Callable[[Moment], bytes]
    """The answer when that is done."""

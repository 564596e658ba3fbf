"""The server-sent events in a stream's content, after its framing was taken off. Pure.

`Edges` finds where an event ends, so that an error event can follow. `Overture` finds the first
event that carries a part of the answer: until it has come, the request can be sent again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from llamasup.apis.dialects import only_opens, passes_the_time

LONGEST_HELD: Final = 64 << 10
"""Bytes of an event that are held back for its end; a longer one is passed on as it comes."""

_EDGES: Final = (b"\n\n", b"\n\r\n", b"\r\r")
_LONGEST_EDGE: Final = 3
_EDGE = re.compile(rb"\n\n|\n\r\n|\r\r")


class Edges:
    """Passes whole events on: holds back the beginning of an event until its end has come."""

    def __init__(self) -> None:
        self.within = False
        """Was a part of an event passed on, because the event was too long to hold back?"""

        self._part = bytearray()

    @property
    def nothing_held(self) -> bool:
        """Was everything passed on, up to the end of an event?"""
        return not self._part and not self.within

    def feed(self, content: bytes) -> bytes:
        """What can be passed on, now that `content` has come."""
        part = self._part
        if self.nothing_held and content.endswith(b"\n\n"):
            return content
        since = max(0, len(part) - _LONGEST_EDGE + 1)
        part += content
        end = max(_after(part, edge, since) for edge in _EDGES)
        if end:
            self.within = False
        elif self.within or len(part) > LONGEST_HELD:
            self.within = True
            end = max(0, len(part) - _LONGEST_EDGE)  # the last bytes may begin an edge
        return self._passed(end)

    def _passed(self, end: int) -> bytes:
        passed = bytes(memoryview(self._part)[:end])
        del self._part[:end]
        return passed

    @property
    def held(self) -> int:
        """How many bytes are held back for the end of their event."""
        return 0 if self.within else len(self._part)

    def let_go(self) -> bytes:
        """Pass on what is held back, although the end of its event has not come."""
        self.within = True
        return self._passed(max(0, len(self._part) - _LONGEST_EDGE))

    def rest(self) -> bytes:
        """What was still held back when the stream ended."""
        rest = bytes(self._part)
        self._part.clear()
        return rest


def _after(content: bytearray, edge: bytes, since: int) -> int:
    """Where the last `edge` ends; 0 if there is none."""
    at = content.rfind(edge, since)
    return at + len(edge) if at >= 0 else 0


class Overture:
    """Reads a stream's first events, up to the one that carries the first word of an answer.

    Events that only pass the time (comments, the progress of the prompt) may reach the client at
    once. Events that only open an answer (a role, a message without content) are kept until the
    first word comes: if it never does, another engine will open the answer again.
    """

    def __init__(self) -> None:
        self.first: bytes | None = None
        """The event with the first word, or with an error."""

        self.kept = b""
        """The beginning of the answer: all events since the one that opened it."""

    def feed(self, events: bytes) -> bytes:
        """The events among these that only pass the time, as long as there is no `first`."""
        passing = b""
        for event in _split(events):
            document = _document(event)
            if self.first is None and _passes_the_time(event, document):
                passing += event
                continue
            self.kept += event
            if self.first is None and not only_opens(document):
                self.first = event
        if self.first is None and len(self.kept) > LONGEST_HELD:
            self.first = b""
        return passing


def _split(events: bytes) -> Iterator[bytes]:
    at = 0
    for edge in _EDGE.finditer(events):
        yield events[at : edge.end()]
        at = edge.end()
    if at < len(events):
        yield events[at:]


_FIELDS_THAT_TELL = re.compile(rb"^(?:data|error):", re.MULTILINE)
_DATA = re.compile(rb"^data: ?([^\r\n]*)", re.MULTILINE)


def _document(event: bytes) -> object:
    try:
        return msgspec.json.decode(b"\n".join(_DATA.findall(event)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _passes_the_time(event: bytes, document: object) -> bool:
    return passes_the_time(document) or not _FIELDS_THAT_TELL.search(event)

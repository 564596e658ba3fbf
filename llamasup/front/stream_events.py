"""Server-sent events in what a stream holds, whatever it was framed in. Pure.

Where one ends, so that an error event may follow any; and which is the first that carries a part
of an answer, so that a request is sent again as long as none has come.
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
    """Holds back a part of an event until the rest has come."""

    def __init__(self) -> None:
        self.within = False
        """What was passed on last ends within an event, which is too long to be held back."""

        self._part = bytearray()

    @property
    def nothing_held(self) -> bool:
        """All that came was passed on, and ended with an event."""
        return not self._part and not self.within

    def feed(self, content: bytes) -> bytes:
        """What of the stream can be passed on, now that `content` has come."""
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
            end = max(0, len(part) - _LONGEST_EDGE)  # an edge may have begun
        passed = bytes(memoryview(part)[:end])
        del part[:end]
        return passed

    def rest(self) -> bytes:
        """What was still held back, once the stream has ended."""
        rest = bytes(self._part)
        self._part.clear()
        return rest


def _after(content: bytearray, edge: bytes, since: int) -> int:
    """Where the last `edge` ends; 0 if there is none."""
    at = content.rfind(edge, since)
    return at + len(edge) if at >= 0 else 0


class Overture:
    """Reads a stream's first events, up to the one that carries the first word of an answer.

    What is there to pass the time (comments, the progress of the prompt) may reach the client at
    once. What only opens an answer (a role, a message without content) is kept together with the
    first word: if that never comes, another engine will open it again.
    """

    def __init__(self) -> None:
        self.first: bytes | None = None
        """The event with the first word, or with an error."""

        self.kept = b""
        """With what the answer begins: all that has come since it opened."""

    def feed(self, events: bytes) -> bytes:
        """The comfort among these events; until there is a `first`."""
        comfort = b""
        for event in _split(events):
            document = _document(event)
            if self.first is None and _passes_the_time(event, document):
                comfort += event
                continue
            self.kept += event
            if self.first is None and not only_opens(document):
                self.first = event
        if self.first is None and len(self.kept) > LONGEST_HELD:
            self.first = b""
        return comfort


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

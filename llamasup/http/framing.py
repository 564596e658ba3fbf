"""Where a message body ends: by its length, by its last chunk, or by the end of the connection.

Both directions use the same classes. An answer's bytes are only counted, so that its end is known;
of a chunked request the payload is kept.

Chunk extensions are refused. They are legal but unused, and servers that read them more or less
strictly disagree about where a message ends (request smuggling). h11 reads them leniently, so h11
reads only heads, and request bodies are read here.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,15})\r\n")
_LONGEST_SIZE_LINE = 17
_LONGEST_TRAILER = 8192


LAST_CHUNK: Final = b"0\r\n\r\n"


def chunk(content: bytes) -> bytes:
    """Content as a chunk. Empty content makes no chunk: an empty chunk means the end."""
    return b"%x\r\n%b\r\n" % (len(content), content) if content else b""


class FramingError(ValueError):
    """The bytes are not such a body as the head announced."""


class Body(Protocol):
    """What has still to come of a body."""

    done: bool

    def feed(self, data: bytes) -> int:
        """Take what belongs to the body and return how many bytes that were.

        These are fewer than all only if the body is `done`: the rest belongs to what follows.
        Raises FramingError; the body must not be fed again afterwards.
        """


class Counted:
    """A body of known length (`Content-Length`, or none at all)."""

    __slots__ = ("done", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0

    def feed(self, data: bytes) -> int:
        """See `Body.feed`."""
        taken = min(len(data), self.left)
        self.left -= taken
        self.done = self.left == 0
        return taken


class UntilClose:
    """A body that ends with its connection: it is never `done` by itself."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> int:
        """See `Body.feed`."""
        return len(data)


class Chunked:
    """A chunked body. `payload`, if given, receives the content without its framing."""

    __slots__ = (
        *("_in_trailer", "_left", "_line", "_trailer_left"),
        *("chunks", "done", "edge", "payload"),
    )

    def __init__(self, payload: bytearray | None = None) -> None:
        self.payload = payload
        self.done = False
        self.edge = 0
        """How many bytes of the data that was fed last are whole chunks."""

        self.chunks = 0
        """How many chunks have begun."""

        self._left = 0  # bytes of the current chunk, with its closing CRLF
        self._line = b""  # the part that has come of a size or trailer line
        self._in_trailer = False
        self._trailer_left = _LONGEST_TRAILER

    def feed(self, data: bytes) -> int:
        """See `Body.feed`."""
        at = self.edge = 0
        end = len(data)
        while at < end and not self.done:
            if self._left:
                at = self._take_content(data, at)
                if not self._left:
                    self.edge = at
            elif self._in_trailer:
                at = self._take_trailer(data, at)
            else:
                at = self._take_size(data, at)
        if self.done:
            self.edge = at
        return at

    def is_next(self, data: bytes) -> bool:
        """Is this exactly one whole chunk, the next one? Then it need not be fed."""
        if self._left or self._line or self._in_trailer:
            return False
        match = _SIZE_LINE.match(data)
        if not match or not data.endswith(b"\r\n"):
            return False
        size = int(match[1], 16)
        return size > 0 and len(data) == match.end() + size + 2

    def _take_size(self, data: bytes, at: int) -> int:
        match = None if self._line else _SIZE_LINE.match(data, at)
        if match:
            stop = match.end()
        else:
            stop = self._take_line(data, at, _LONGEST_SIZE_LINE)
            if not self._line.endswith(b"\n"):
                return stop
            match = _SIZE_LINE.fullmatch(self._line)
            self._line = b""
            if not match:
                raise FramingError("a chunk must start with its size in hexadecimal digits, alone")
        size = int(match[1], 16)
        self.chunks += 1
        self._left = size + 2 if size else 0
        self._in_trailer = size == 0
        return stop

    def _take_content(self, data: bytes, at: int) -> int:
        stop = min(at + self._left, len(data))
        content_stop = min(at + max(self._left - 2, 0), stop)
        if self.payload is not None:
            self.payload += data[at:content_stop]
        ending = b"\r\n"[-self._left :] if self._left < 2 else b"\r\n"
        self._left -= stop - at
        if not ending.startswith(data[content_stop:stop]):
            raise FramingError("a chunk is longer than its size says")
        return stop

    def _take_trailer(self, data: bytes, at: int) -> int:
        stop = self._take_line(data, at, self._trailer_left)
        if self._line.endswith(b"\n"):
            if not self._line.endswith(b"\r\n"):
                raise FramingError("a trailer line must end with a carriage return and a newline")
            self._trailer_left -= len(self._line)
            self.done = self._line == b"\r\n"
            self._line = b""
        return stop

    def _take_line(self, data: bytes, at: int, longest: int) -> int:
        stop = data.find(b"\n", at) + 1 or len(data)
        self._line += data[at:stop]
        if len(self._line) > longest:
            raise FramingError("a line of the chunked framing is too long")
        return stop

"""Keeps the beginning and the end of an answer: there it says how many tokens it took. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from llamasup.apis.dialect import Dialect
from llamasup.apis.usage import (
    BYTES_OF_A_TOKEN,
    usage_at_least,
    usage_of_answer,
    usage_of_ends,
    usage_of_stream,
)
from llamasup.events import Usage

_BEGINNING: Final = 4 << 10
_END: Final = 16 << 10


class Margins:
    """The beginning and the end of one answer, whose content comes piece by piece."""

    def __init__(self, dialect: Dialect, path: bytes) -> None:
        """The engine answers at this path, in this dialect."""
        self._dialect = dialect
        self.is_written = path.removesuffix(b"/").endswith(dialect.stream_paths)
        """Does a model write it? Then its tokens can be guessed from its size."""

        self._beginning = bytearray()
        self._end: deque[bytes] = deque()
        self._size = 0
        self._size_of_all = 0
        self.events = 0
        """How many events came, if it is a stream. llama-server sends one for each token."""

        self.is_whole = True
        """Are they the whole answer, with nothing missing in between?"""

    def add(self, content: bytes) -> None:
        """Keep the next piece, as far as there is room."""
        self.events += content.count(b"data:")
        self._size_of_all += len(content)
        room = _BEGINNING - len(self._beginning)
        if room > 0:
            self._beginning += content[:room]
            content = content[room:]
        if not content:
            return
        self._end.append(content)
        self._size += len(content)
        while self._size - len(self._end[0]) >= _END:
            self._size -= len(self._end.popleft())
            self.is_whole = False

    @property
    def content(self) -> bytes:
        """Beginning and end together; between them something may be missing."""
        return bytes(self._beginning) + b"".join(self._end)

    def usage(self, is_stream: bool) -> Usage | None:
        """What the answer took; None if it does not say."""
        if is_stream:
            return usage_of_stream(self._dialect, self.content)
        read = usage_of_answer if self.is_whole else usage_of_ends
        return read(self._dialect, self.content)

    def usage_at_least(self, request_size: int) -> Usage:
        """What an answer took that does not say it: it is unfinished, or its client has asked
        llama-server for other members (`response_fields`)."""
        tokens = self.events or (self._size_of_all // BYTES_OF_A_TOKEN if self.is_written else 0)
        return usage_at_least(request_size, tokens)

"""How an answer opens: with the engine's own head, or early, with ours.

A client that waits for a stream may get a head and comments before any engine is ready to answer.
From then on the answer is a stream: the engine's head is left out, and an error is an event. An
error is an event, too, when a stream breaks off after one of its events.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from llamasup.apis.dialects import dialect_at
from llamasup.errors import LlamasupError
from llamasup.front.margins import Margins
from llamasup.front.own_replies import error_reply
from llamasup.http.framing import LAST_CHUNK, chunk
from llamasup.http.reply_heads import ReplyHead, rewritten
from llamasup.http.requests import Request

_EVENT_STREAM: Final = ReplyHead(
    200, [b"Content-Type: text/event-stream"], None, chunked=True, is_event_stream=True
)


class Seen(Enum):
    """What a client has of its answer."""

    NOTHING = "nothing"

    EVENTS = "events"
    """A head, and whole events; another event may follow."""

    A_PART = "a part"
    """A part of something, which nothing but its rest can follow."""


class Answer:
    """How one answer begins, and the whole answer where it is an error."""

    def __init__(
        self, request: Request, extra: list[bytes], begins: Callable[[], None] = lambda: None
    ) -> None:
        """`begins` is called when it does, unless it is an error and nothing else."""
        self.seen = Seen.NOTHING
        """What the client has of the answer."""

        self.margins: Margins | None = None
        """What is kept of its content, if anything."""

        self.is_stream = False
        """It is one of server-sent events."""

        self.extra = extra
        """Header lines of ours."""

        self._request = request
        self._begins = begins

    def suits(self, head: ReplyHead) -> bool:
        """Can this reply be the client's answer, after what it has seen?"""
        is_stream = head.status == 200 and head.is_event_stream
        return is_stream or self.seen is Seen.NOTHING

    def head(self, head: ReplyHead, framing_line: bytes | None) -> bytes:
        """A reply's head for the client; empty if the client has one already."""
        if self.seen is Seen.EVENTS:
            return b""
        self._begins()
        return rewritten(head, self._request, framing_line, self.extra)

    def comment(self, words: str) -> bytes:
        """A comment, which clients of streams pass over; the first one opens the answer."""
        # Models are named after files, and those may be named by bytes that are no text.
        line = " ".join(words.split()).encode(errors="replace")
        comment = self._framed(b": %b\n\n" % line)
        head = self.head(_EVENT_STREAM, self._framing_line)
        self.seen = Seen.EVENTS
        return head + comment

    def failure(self, error: LlamasupError) -> bytes:
        """The error as the whole answer, or as the end of a stream. Never after `A_PART`."""
        if self.seen is Seen.NOTHING:
            return error_reply(error, self._request, self.extra)
        dialect = dialect_at(self._request.target.partition(b"?")[0])
        event = self._framed(dialect.error_event(error))
        return event if self._request.http_1_0 else event + LAST_CHUNK

    def last_words(self, error: LlamasupError) -> bytes:
        """The same, where the connection ends with it."""
        self._request.keep_alive = False
        return self.failure(error)

    @property
    def _framing_line(self) -> bytes | None:
        return None if self._request.http_1_0 else b"Transfer-Encoding: chunked"

    def _framed(self, event: bytes) -> bytes:
        """HTTP/1.0 knows no chunks: its stream ends with the connection."""
        return event if self._request.http_1_0 else chunk(event)

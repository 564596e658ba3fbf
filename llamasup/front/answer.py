"""How an answer begins: with the engine's own head, or earlier, with a head of ours.

A client that waits for a stream may get a head and comments before any engine is ready to answer.
From then on the answer is a stream: the engine's head is left out, and an error becomes an event of
the stream. So does an error after which a stream breaks off between two events.
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
    """What a client has received of its answer."""

    NOTHING = "nothing"

    EVENTS = "events"
    """A head, and whole events; another event may follow."""

    A_PART = "a part"
    """An unfinished part, which only its own rest can follow."""


class Answer:
    """One answer: its head, its comments, and its error if there is one."""

    def __init__(
        self,
        request: Request,
        extra: list[bytes],
        begins: Callable[[], None] = lambda: None,
        marks: Callable[[], list[bytes]] = list,
    ) -> None:
        """`begins` is called when the answer begins, unless it is only an error. `marks` returns
        header lines about the request, and is asked when the head is made."""
        self.seen = Seen.NOTHING
        """What the client has received of the answer."""

        self.margins: Margins | None = None
        """The parts of its content that are kept, if any."""

        self.is_stream = False
        """Is it a stream of server-sent events?"""

        self.extra = extra
        """Our own header lines."""

        self._request = request
        self._begins = begins
        self._marks = marks

    def suits(self, head: ReplyHead) -> bool:
        """Can this reply be the client's answer, after what the client has seen?"""
        is_stream = head.status == 200 and head.is_event_stream
        return is_stream or self.seen is Seen.NOTHING

    def head(self, head: ReplyHead, framing_line: bytes | None) -> bytes:
        """A reply's head as the client gets it; empty if the client has a head already."""
        if self.seen is Seen.EVENTS:
            return b""
        self._begins()
        return rewritten(head, self._request, framing_line, [*self.extra, *self._marks()])

    def comment(self, words: str) -> bytes:
        """A comment, which clients of streams ignore; before the first one the head is sent."""
        # Models are named after files, and the names of files need not be valid text.
        line = " ".join(words.split()).encode(errors="replace")
        comment = self._framed(b": %b\n\n" % line)
        head = self.head(_EVENT_STREAM, self._framing_line)
        self.seen = Seen.EVENTS
        return head + comment

    def failure(self, error: LlamasupError) -> bytes:
        """The error as the whole answer, or as the end of a stream. Never after `A_PART`."""
        if self.seen is Seen.NOTHING:
            return error_reply(error, self._request, [*self.extra, *self._marks()])
        dialect = dialect_at(self._request.target.partition(b"?")[0])
        event = self._framed(dialect.error_event(error))
        return event if self._request.http_1_0 else event + LAST_CHUNK

    def final_failure(self, error: LlamasupError) -> bytes:
        """The same, for a connection that ends with it."""
        self._request.keep_alive = False
        return self.failure(error)

    @property
    def _framing_line(self) -> bytes | None:
        return None if self._request.http_1_0 else b"Transfer-Encoding: chunked"

    def _framed(self, event: bytes) -> bytes:
        """The event as a chunk. HTTP/1.0 knows no chunks: its stream ends with the connection."""
        return event if self._request.http_1_0 else chunk(event)

"""How an answer begins: with the engine's own head, or earlier, with a head of ours.

A client that waits for a stream may get a head and comments before any engine is ready to answer.
From then on the answer is a stream: the engine's head is left out, and an error becomes an event of
the stream. So does an error after which a stream breaks off between two events.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from llamasup.apis.dialect import Dialect
from llamasup.apis.dialects import dialect_at
from llamasup.apis.translation import Reply
from llamasup.errors import LlamasupError
from llamasup.front.margins import Margins
from llamasup.front.own_replies import error_reply
from llamasup.front.rooms import Hold
from llamasup.http.framing import LAST_CHUNK, chunk
from llamasup.http.reply_heads import ReplyHead, rewritten
from llamasup.http.requests import Request


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

        self.hold: Hold | None = None
        """Counts what is held back of it, and what its client has not taken."""

        self.margins: Margins | None = None
        """The parts of its content that are kept, if any."""

        self.status = 0
        """That of its head, once there is one."""

        self.is_stream = False
        """Does it come as a stream of server-sent events?"""

        self.reply: Reply | None = None
        """Who tells it in the client's API, if no engine speaks that."""

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
        self.status = head.status
        return rewritten(head, self._request, framing_line, [*self.extra, *self._marks()])

    def comment(self, words: str) -> bytes:
        """A comment, which clients of streams ignore; before the first one the head is sent."""
        # Models are named after files, and the names of files need not be valid text.
        line = " ".join(words.split()).encode(errors="replace")
        comment = self._framed(self._dialect.comment(line))
        head = self.head(_stream_of(self._dialect), self._framing_line)
        self.seen = Seen.EVENTS
        return head + comment

    def failure(self, error: LlamasupError) -> bytes:
        """The error as the whole answer, or as the end of a stream. Never after `A_PART`."""
        if self.seen is Seen.NOTHING:
            return error_reply(error, self._request, [*self.extra, *self._marks()])
        event = self._framed(self._dialect.error_event(error))
        return event if self._request.http_1_0 else event + LAST_CHUNK

    def document(self, body: bytes) -> bytes:
        """A whole answer of ours: this JSON."""
        head = ReplyHead(200, [b"Content-Type: application/json"], len(body), chunked=False)
        first = self.head(head, b"Content-Length: %d" % len(body))
        self.seen = Seen.A_PART
        return first + body

    def final_failure(self, error: LlamasupError) -> bytes:
        """The same, for a connection that ends with it."""
        self._request.keep_alive = False
        return self.failure(error)

    @property
    def _dialect(self) -> Dialect:
        return dialect_at(self._request.target.partition(b"?")[0])

    @property
    def _framing_line(self) -> bytes | None:
        return None if self._request.http_1_0 else b"Transfer-Encoding: chunked"

    def _framed(self, event: bytes) -> bytes:
        """The event as a chunk. HTTP/1.0 knows no chunks: its stream ends with the connection."""
        return event if self._request.http_1_0 else chunk(event)


def _stream_of(dialect: Dialect) -> ReplyHead:
    """The head of a stream in this dialect, before an engine has sent one."""
    lines = [b"Content-Type: " + dialect.stream_type]
    return ReplyHead(200, lines, None, chunked=True, is_event_stream=True)

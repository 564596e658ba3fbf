"""How an answer opens: with the engine's own head, or early, with ours.

A client that waits for a stream may be given a head and comments before there is an engine to ask.
From then on the answer is a stream: the engine's head is left out, and an error is an event.
"""

from __future__ import annotations

from typing import Final

from llamasup.errors import LlamasupError
from llamasup.front.apologies import apology
from llamasup.front.framing import LAST_CHUNK, chunk
from llamasup.front.replies import ReplyHead, error_reply, rewritten
from llamasup.front.requests import Request

_EVENT_STREAM: Final = ReplyHead(
    200, [b"Content-Type: text/event-stream"], None, chunked=True, is_event_stream=True
)


class Opening:
    """The beginning of one answer, and all of it where it is an error."""

    def __init__(self, request: Request, extra: list[bytes]) -> None:
        self.early = False
        """The client has our head, and takes what comes for a stream of events."""

        self._request = request
        self._extra = extra

    def suits(self, head: ReplyHead) -> bool:
        """Can this reply be the client's answer, after what it has seen?"""
        is_stream = head.status == 200 and head.is_event_stream and head.length is None
        return is_stream or not self.early

    def head(self, head: ReplyHead, framing_line: bytes | None) -> bytes:
        """What the client is still to see of a reply's head."""
        if self.early:
            return b""
        return rewritten(head, self._request, framing_line, self._extra)

    def comment(self, words: str) -> bytes:
        """A comment, which clients of streams pass over; the first one opens the answer."""
        # Models are named after files, and those may be named by bytes that are no text.
        line = " ".join(words.split()).encode(errors="replace")
        comment = self._framed(b": %b\n\n" % line)
        if self.early:
            return comment
        head = self.head(_EVENT_STREAM, self._framing_line)
        self.early = True
        return head + comment

    def failure(self, error: LlamasupError) -> bytes:
        """The whole answer, or the end of one that is open: what went wrong."""
        if not self.early:
            return error_reply(error, self._request, self._extra)
        event = self._framed(apology(self._request.target.partition(b"?")[0], error))
        return event if self._request.http_1_0 else event + LAST_CHUNK

    @property
    def _framing_line(self) -> bytes | None:
        return None if self._request.http_1_0 else b"Transfer-Encoding: chunked"

    def _framed(self, event: bytes) -> bytes:
        """HTTP/1.0 knows no chunks: its stream ends with the connection."""
        return event if self._request.http_1_0 else chunk(event)

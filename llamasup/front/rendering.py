"""Turns an answer from the framing in which it came into one that its client understands. Pure.

The content stays as it is. A stream is passed on in whole events, so that an error event can follow
any of them. It is also searched for an engine's message that memory ran out.
"""

from __future__ import annotations

from llamasup.engine.error_messages import messages_in_events
from llamasup.front.answer import Answer, Seen
from llamasup.front.rooms import Part
from llamasup.front.stream_events import Edges
from llamasup.http.framing import LAST_CHUNK, Chunked, Counted, chunk
from llamasup.http.reply_heads import ReplyHead
from llamasup.http.requests import Request
from llamasup.upstream import Upstream, Verdict


class Rendering:
    """Turns what an upstream sends as one answer into what the client gets."""

    def __init__(self, head: ReplyHead, request: Request, answer: Answer) -> None:
        self.body = head.framing(request)
        """The framing in which the answer comes; it knows whether all of it has come."""

        self.surplus = 0
        """Bytes that came after the answer's end; they are not passed on."""

        self._head = head
        self._answer = answer
        self._framing_line: bytes | None = None
        self._payload = bytearray()
        self._in_chunks = False
        if isinstance(self.body, Chunked):
            self.body.payload = self._payload
        if isinstance(self.body, Counted):
            if head.length is not None and head.status != 204:
                self._framing_line = b"Content-Length: %d" % head.length
        elif not request.http_1_0:
            # HTTP/1.0 knows no chunks: the content alone, until the connection ends.
            self._send_in_chunks()

    def _send_in_chunks(self) -> None:
        self._framing_line = b"Transfer-Encoding: chunked"
        self._in_chunks = True

    def content(self, data: bytes) -> bytes:
        """The content that can be passed on, now that `data` has come. Raises FramingError."""
        taken = self.body.feed(data)
        self.surplus += len(data) - taken
        if not isinstance(self.body, Chunked):
            return data[:taken]
        content = bytes(self._payload)
        self._payload.clear()
        return content

    def begun(self, content: bytes) -> bytes:
        """The first bytes to send: the head, unless the client has one, and the first content."""
        return self._answer.head(self._head, self._framing_line) + self._framed(
            self._inspected(content)
        )

    def passed(self, data: bytes) -> bytes:
        """The next bytes to send, now that `data` has come. Raises FramingError."""
        content = self._inspected(self.content(data))
        return self._framed(content) if content or self.body.done else b""

    def ending(self) -> bytes:
        """The last bytes to send, for an answer that ended with its connection."""
        return LAST_CHUNK if self._in_chunks else b""

    def note_seen(self) -> None:
        """Update `Answer.seen`: the client may have received all that was passed on so far."""
        self._answer.seen = Seen.A_PART

    def _inspected(self, content: bytes) -> bytes:
        """`content`, after a look at what it says."""
        if self._answer.margins is not None:
            self._answer.margins.add(content)
        return content

    def _framed(self, content: bytes) -> bytes:
        """The content in the client's framing, with the end if that has come."""
        framed = chunk(content) if self._in_chunks else content
        return framed + self.ending() if self.body.done else framed


class StreamRendering(Rendering):
    """The same for server-sent events: each is passed on as a whole, unless it is very long."""

    def __init__(
        self, head: ReplyHead, request: Request, answer: Answer, upstream: Upstream
    ) -> None:
        super().__init__(head, request, answer)
        self.request_size = len(request.body)
        """The size of the request's body, in bytes."""

        answer.is_stream = True
        self._upstream = upstream
        self._edges = Edges()
        self._held_back = Part(answer.hold)
        self._opening = Part(answer.hold)
        if request.http_1_0:
            self._framing_line = None
        else:
            self._send_in_chunks()
        self._chunks = self.body if self._in_chunks and isinstance(self.body, Chunked) else None

    @property
    def is_within_event(self) -> bool:
        """Was an event passed on only in part, so that only its rest can follow?"""
        return self._edges.within

    def content(self, data: bytes) -> bytes:
        """See `Rendering.content`."""
        content = super().content(data)
        # A comment is no progress: llama-server sends it as a ping.
        if b"data:" in content or self._edges.within:
            self._upstream.progressed()
        events = self._edges.feed(content)
        if not self._held_back.resize(self._edges.held):
            events += self._edges.let_go()
        return events + self._edges.rest() if self.body.done else events

    def may_keep(self, opening: bytes) -> bool:
        """Is there room for the events that have opened the answer, until its first word comes?"""
        return self._opening.resize(len(opening))

    def before_answer(self, events: bytes) -> bytes:
        """The bytes to send for events that only pass the time, before the answer has begun."""
        head = self._answer.head(self._head, self._framing_line)
        self._answer.seen = Seen.EVENTS
        return head + self._framed(events)

    def passed(self, data: bytes) -> bytes:
        """See `Rendering.passed`."""
        # llama-server writes each event as one chunk, so most can be passed on as they are.
        if (
            data.endswith(b"\n\n\r\n")
            and self._chunks
            and self._chunks.is_next(data)
            and self._edges.nothing_held
        ):
            if b"data:" in data:
                self._upstream.progressed()
            return self._inspected(data)
        return super().passed(data)

    def ending(self) -> bytes:
        """See `Rendering.ending`."""
        rest = self._edges.rest()
        return (chunk(rest) if self._in_chunks else rest) + super().ending()

    def note_seen(self) -> None:
        """See `Rendering.note_seen`."""
        self._answer.seen = Seen.A_PART if self._edges.within else Seen.EVENTS

    def _inspected(self, content: bytes) -> bytes:
        if b"error" in content and not self._edges.within:
            for message in messages_in_events(content):
                verdict = self._upstream.judge(500, message, self.request_size)
                if verdict is Verdict.OUT_OF_MEMORY:
                    self._upstream.note_out_of_memory(message)
        if self._answer.margins is not None:
            self._answer.margins.add(content)
        return content

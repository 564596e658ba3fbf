"""Turns an engine's answer into one in the client's API, which no engine speaks. Pure.

A stream becomes lines, each as soon as its events have come; an answer that is no stream is told
when all of it has come.
"""

from __future__ import annotations

from attrs import evolve

from llamasup.apis.translation import Reply
from llamasup.errors import EngineFailed
from llamasup.front.answer import Answer, Seen
from llamasup.front.rendering import Rendering, StreamRendering
from llamasup.http.framing import LAST_CHUNK, chunk
from llamasup.http.reply_heads import ReplyHead
from llamasup.http.requests import Request
from llamasup.upstream import Upstream


class TranslatedStream(StreamRendering):
    """See `Rendering`. All that it passes on are whole lines, so an error can always follow.

    What it says to pass on, and its ending, raise EngineFailed if the answer cannot be understood,
    or ends without its last event.
    """

    def __init__(
        self, head: ReplyHead, request: Request, answer: Answer, upstream: Upstream, reply: Reply
    ) -> None:
        super().__init__(_in_lines(head), request, answer, upstream)
        self._chunks = None  # nothing is passed on as it came
        self._reply = reply

    def before_answer(self, events: bytes) -> bytes:
        """See `StreamRendering.before_answer`. The events become a blank."""
        return super().before_answer(_BLANK)

    def begun(self, content: bytes) -> bytes:
        """See `Rendering.begun`. Raises EngineFailed, too, for an answer that is only an error."""
        told = self._inspected(content)
        if self._reply.error and self._answer.seen is Seen.NOTHING:
            raise EngineFailed(self._reply.error)
        framed = self._framed(told)
        return self._answer.head(self._head, self._framing_line) + framed

    def ending(self) -> bytes:
        """See `Rendering.ending`."""
        rest = self._reply.lines(self._edges.rest())
        if not self._reply.ended:
            raise EngineFailed("the engine's answer ended before its last event")
        return (chunk(rest) + LAST_CHUNK) if self._in_chunks else rest

    def note_seen(self) -> None:
        """See `Rendering.note_seen`."""
        self._answer.seen = Seen.EVENTS

    def _inspected(self, content: bytes) -> bytes:
        return self._reply.lines(super()._inspected(content))


_BLANK = b" "
"""JSON allows blanks before a value."""


def _in_lines(head: ReplyHead) -> ReplyHead:
    """The engine's head, with the type of lines in JSON."""
    others = [line for line in head.lines if not line.lower().startswith(b"content-type:")]
    return evolve(head, lines=[b"Content-Type: application/x-ndjson", *others])


class TranslatedWhole(Rendering):
    """See `Rendering`. Nothing is passed on before all has come."""

    def __init__(self, head: ReplyHead, request: Request, answer: Answer, reply: Reply) -> None:
        super().__init__(head, request, answer)
        self._reply = reply

    def told(self, body: bytes) -> bytes:
        """The content in the client's API. Raises EngineFailed. It may take long."""
        return self._reply.whole(self._inspected(body))

    def answered(self, told: bytes) -> bytes:
        """All the bytes to send."""
        length = b"Content-Length: %d" % len(told)
        return self._answer.head(self._head, length) + told

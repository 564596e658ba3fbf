"""One request goes to an upstream, and its answer to the client, as the bytes come.

Every request has a connection of its own: kept-alive ones would pin llama-server's threads, and
closing it is how a request is cancelled, whatever it is doing. The answer's content is passed on
as it comes, in a framing of ours, so that a cut answer is never taken for a whole one. A stream of
events is watched until its first word: up to then it can be had from another engine.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Protocol

from attrs import evolve

from llamasup.config.addresses import Address
from llamasup.engine.error_messages import message_of_reply, messages_in_events
from llamasup.engine.failures import Verdict
from llamasup.errors import ChildLost, ClientError, EngineFailed, LlamasupError, TooLargeForEngine
from llamasup.front.answer import Opening, Seen
from llamasup.front.error_events import named
from llamasup.front.events import Edges, Overture
from llamasup.http import sockets
from llamasup.http.connection import Connection
from llamasup.http.framing import LAST_CHUNK, Chunked, Counted, FramingError, UntilClose, chunk
from llamasup.http.heads import END_OF_HEAD
from llamasup.http.reply_heads import LONGEST_HEAD, ReplyHead, read_head
from llamasup.http.requests import Request, Stored

log = logging.getLogger(__name__)

_SMALL_BODY = 64 << 10
_LONGEST_VERDICT = 64 << 10
_MOST_INTERIM_REPLIES = 32


class RanOutOfMemory(ChildLost):
    """The answer was that memory ran out; the client has seen nothing of it."""


class ReplyCut(Exception):
    """The upstream broke off after the client had seen the beginning of the answer."""


class Upstream(Protocol):
    """Whoever can answer a request: a leased child, or control."""

    def __str__(self) -> str:
        """What a message calls it."""

    @property
    def address(self) -> Address:
        """Where it listens."""

    @property
    def withheld(self) -> Collection[bytes]:
        """The headers of a client's that are not for it."""

    async def survived(self) -> bool:
        """Is it still well, now that it has closed a connection without a word?"""

    def progressed(self) -> None:
        """Something of its answer came."""

    def held_up(self) -> AbstractContextManager[None]:
        """For as long as the client takes nothing more: that it stands still is not its fault."""

    def verdict(self, status: int, message: str, size: int) -> Verdict:
        """What an error of its with this message means, for a request's body of `size` bytes."""

    def out_of_memory(self, words: str) -> bool:
        """It says so. True if it makes room for one that needs less."""


async def relay(
    connection: Connection,
    request: Request,
    upstream: Upstream,
    target: bytes,
    opening: Opening,
) -> None:
    """Send `request` to `upstream` as `target`, and the answer to the client.

    Before the client has seen a word of it, it raises ChildLost, or RanOutOfMemory where the
    answer was that, or another error where the answer is none, or none to what the client has
    seen already. Afterwards an answer that breaks off raises ReplyCut. ClientLeft when the client
    is gone. Cancelled, it closes the upstream's connection at once. However it ends, `opening`
    knows what of an answer the client has.
    """
    sock = await _dial(upstream)
    try:
        await _send_request(sock, request.forwarded(target, upstream.withheld), request.body)
        head, data = await _receive_head(sock)
        if head.status >= 400:
            head, data = await _read_verdict(sock, upstream, head, request, data)
        if not opening.suits(head):
            raise _refusal(head, request, data)
        answer = _answer(head, request, upstream)
        if isinstance(answer, _Stream):
            first = await _first_word(
                connection, request, upstream, sock, head, data, answer, opening
            )
        else:
            first = _checked(answer, data)
        await _pass_on(connection, upstream, sock, head, first, answer, opening)
    finally:
        sock.close()


async def _dial(upstream: Upstream) -> socket.socket:
    try:
        return await sockets.dial(upstream.address)
    except OSError as error:
        raise ChildLost(f"{upstream} cannot be reached: {error.strerror}") from error


async def _send_request(sock: socket.socket, head: bytes, body: bytes | bytearray | Stored) -> None:
    """Send all, or as much as is taken: who refuses a request may say why before it is read."""
    try:
        if not isinstance(body, bytes | bytearray):
            await sockets.send(sock, head)
            await _send_stored(sock, body)
        elif len(body) <= _SMALL_BODY:
            await sockets.send(sock, head + body)
        else:
            await sockets.send(sock, head)
            await sockets.send(sock, body)
    except OSError:
        return


async def _send_stored(sock: socket.socket, body: Stored) -> None:
    at = 0
    while at < len(body):
        piece = await body.read(at)
        await sockets.send(sock, piece)
        at += len(piece)


async def _receive(sock: socket.socket) -> bytes:
    """What comes next, while nothing has been passed on. Raises ChildLost if nothing comes."""
    try:
        data = await sockets.receive(sock)
    except OSError as error:
        raise ChildLost(f"the engine broke off: {error.strerror}") from error
    if not data:
        raise ChildLost("the engine closed the connection without an answer")
    return data


async def _receive_head(sock: socket.socket) -> tuple[ReplyHead, bytes]:
    """The reply's head, and what came of its body with it. Interim replies are passed over."""
    data = bytearray()
    for _ in range(_MOST_INTERIM_REPLIES):
        seen = 0
        while (end := data.find(END_OF_HEAD, seen)) < 0 and len(data) <= LONGEST_HEAD:
            seen = max(0, len(data) - len(END_OF_HEAD))
            data += await _receive(sock)
        if not 0 <= end <= LONGEST_HEAD:
            raise EngineFailed("the engine's answer cannot be read: its head has no end")
        split = end + len(END_OF_HEAD)
        head = read_head(bytes(data[:split]))
        del data[:split]
        if head.status >= 200:
            return head, bytes(data)
        if head.status == 101:
            raise EngineFailed("the engine speaks another protocol now, for which nobody asked")
    raise EngineFailed("the engine sends interim replies without end")


async def _read_verdict(
    sock: socket.socket, upstream: Upstream, head: ReplyHead, request: Request, data: bytes
) -> tuple[ReplyHead, bytes]:
    """Read a bad answer whole (within reason) before anybody sees it: it may be worth a retry."""
    body = head.framing(request)
    try:
        body.feed(data)
        while not body.done and len(data) < _LONGEST_VERDICT:
            if not (more := await sockets.receive(sock)):
                break
            body.feed(more)
            data += more
    except FramingError as error:
        raise _badly_framed(error) from error
    except OSError as error:
        raise ChildLost(f"the engine broke off: {error.strerror}") from error
    content = _content(head, request, data)
    _judge(upstream, request, head.status, message_of_reply(content))
    path = request.target.partition(b"?")[0]
    if body.done and (reworded := named(path, head.status, content)):
        return evolve(head, length=len(reworded), chunked=False), reworded
    return head, data


def _judge(upstream: Upstream, request: Request, status: int, message: str) -> None:
    """Raise what an error with this message means, if that is more than the client's business."""
    match upstream.verdict(status, message, len(request.body)):
        case Verdict.OUT_OF_MEMORY:
            raise RanOutOfMemory(message)
        case Verdict.TOO_LARGE:
            raise _too_large(request)


def _too_large(request: Request) -> TooLargeForEngine:
    return TooLargeForEngine(
        f"the engine has no memory for a body of {len(request.body) >> 20} MiB:"
        " send less at once, or in parts"
    )


def _content(head: ReplyHead, request: Request, data: bytes) -> bytes:
    """What a bad answer holds."""
    body = head.framing(request)
    if isinstance(body, Chunked):
        body.payload = bytearray()
        body.feed(data)
        return bytes(body.payload)
    return data[: body.feed(data)]


def _refusal(head: ReplyHead, request: Request, data: bytes) -> LlamasupError:
    """The engine's answer as an error, for a client that expects the events of a stream."""
    if head.status < 400:
        return EngineFailed("the engine did not answer with a stream")
    words = (
        message_of_reply(_content(head, request, data))
        or f"the engine answered with status {head.status}"
    )
    return ClientError(words) if head.status < 500 else EngineFailed(words)


class _Answer:
    """An answer on its way: taken out of the framing it came in, and put into the client's."""

    def __init__(self, head: ReplyHead, request: Request) -> None:
        self.body = head.framing(request)
        self.framing_line: bytes | None = None
        self._payload = bytearray()
        self._in_chunks = False
        if isinstance(self.body, Chunked):
            self.body.payload = self._payload
        if isinstance(self.body, Counted):
            if head.length is not None and head.status != 204:
                self.framing_line = b"Content-Length: %d" % head.length
        elif not request.http_1_0:
            # HTTP/1.0 knows no chunks: the content alone, until the connection ends.
            self._send_in_chunks()

    def _send_in_chunks(self) -> None:
        self.framing_line = b"Transfer-Encoding: chunked"
        self._in_chunks = True

    @property
    def seen(self) -> Seen:
        """What the client has, once the beginning was passed on."""
        return Seen.A_PART

    def content(self, data: bytes) -> bytes:
        """What can be passed on, now that `data` has come. Raises FramingError."""
        taken = self.body.feed(data)
        if taken < len(data):
            log.warning("an engine sent %d bytes after its reply's end", len(data) - taken)
        if not isinstance(self.body, Chunked):
            return data[:taken]
        content = bytes(self._payload)
        self._payload.clear()
        return content

    def passed(self, data: bytes) -> bytes:
        """What is sent to the client, now that `data` has come. Raises FramingError."""
        content = self.heeded(self.content(data))
        return self.framed(content) if content or self.body.done else b""

    def heeded(self, content: bytes) -> bytes:
        """`content`, after a look at what it says about its engine."""
        return content

    def framed(self, content: bytes) -> bytes:
        """As it is sent to the client, and with the end if that has come."""
        framed = chunk(content) if self._in_chunks else content
        return framed + self.ending() if self.body.done else framed

    def ending(self) -> bytes:
        """What comes after everything else."""
        return LAST_CHUNK if self._in_chunks else b""


class _Stream(_Answer):
    """Server-sent events: passed on whole, so that an error event may follow any."""

    def __init__(self, head: ReplyHead, request: Request, upstream: Upstream) -> None:
        super().__init__(head, request)
        self._upstream = upstream
        self._size = len(request.body)
        self._edges = Edges()
        if request.http_1_0:
            self.framing_line = None
        else:
            self._send_in_chunks()
        self._chunks = self.body if self._in_chunks and isinstance(self.body, Chunked) else None

    @property
    def seen(self) -> Seen:
        return Seen.A_PART if self._edges.within else Seen.EVENTS

    def content(self, data: bytes) -> bytes:
        content = super().content(data)
        # A comment, llama-server's ping, is no progress.
        if b"data:" in content or self._edges.within:
            self._upstream.progressed()
        events = self._edges.feed(content)
        return events + self._edges.rest() if self.body.done else events

    def passed(self, data: bytes) -> bytes:
        # llama-server writes each event as one chunk: most need nothing but a look.
        if (
            data.endswith(b"\n\n\r\n")
            and self._chunks
            and self._chunks.is_next(data)
            and self._edges.nothing_held
        ):
            if b"data:" in data:
                self._upstream.progressed()
            return self.heeded(data)
        return super().passed(data)

    def heeded(self, content: bytes) -> bytes:
        if b"error" in content and not self._edges.within:
            for message in messages_in_events(content):
                if self._upstream.verdict(500, message, self._size) is Verdict.OUT_OF_MEMORY:
                    self._upstream.out_of_memory(message)
        return content

    def ending(self) -> bytes:
        rest = self._edges.rest()
        return (chunk(rest) if self._in_chunks else rest) + super().ending()


def _answer(head: ReplyHead, request: Request, upstream: Upstream) -> _Answer:
    if head.is_event_stream and head.status < 400 and not head.framing(request).done:
        return _Stream(head, request, upstream)
    return _Answer(head, request)


def _checked(answer: _Answer, data: bytes) -> bytes:
    """The content in `data`, while nothing has been passed on."""
    try:
        return answer.content(data)
    except FramingError as error:
        raise _badly_framed(error) from error


def _badly_framed(error: FramingError) -> EngineFailed:
    return EngineFailed(f"the engine's answer is badly framed: {error}")


async def _first_word(
    connection: Connection,
    request: Request,
    upstream: Upstream,
    sock: socket.socket,
    head: ReplyHead,
    data: bytes,
    stream: _Stream,
    opening: Opening,
) -> bytes:
    """The events with which the answer begins; the client gets what only passes the time till then.

    llama-server sends the head before it has read the prompt, and pings while it does: they
    promise nothing yet.
    """
    overture = Overture()
    while True:
        comfort = overture.feed(_checked(stream, data))
        if overture.first is not None or stream.body.done or stream.seen is Seen.A_PART:
            for message in messages_in_events(overture.first or b""):
                _judge(upstream, request, 500, message)
            return comfort + overture.kept
        if comfort:
            beginning = opening.head(head, stream.framing_line)
            opening.seen = Seen.EVENTS
            if rest := connection.send_now(beginning + stream.framed(comfort)):
                with upstream.held_up():
                    await connection.send_slowly(rest)
        data = await _receive(sock)


async def _pass_on(
    connection: Connection,
    upstream: Upstream,
    sock: socket.socket,
    head: ReplyHead,
    first: bytes,
    answer: _Answer,
    opening: Opening,
) -> None:
    beginning = opening.head(head, answer.framing_line)
    try:
        await connection.send(beginning + answer.framed(answer.heeded(first)))
        await _pass_body(connection, upstream, sock, answer)
    finally:
        opening.seen = answer.seen


async def _pass_body(
    connection: Connection, upstream: Upstream, sock: socket.socket, answer: _Answer
) -> None:
    body = answer.body
    try:
        while not body.done:
            data = await sockets.receive(sock)
            if not data:
                break
            part = answer.passed(data)
            if part and (rest := connection.send_now(part)):
                with upstream.held_up():
                    await connection.send_slowly(rest)
    except (FramingError, OSError) as error:
        raise ReplyCut(f"the engine broke off its answer: {error}") from error
    if body.done:
        return
    if not (isinstance(body, UntilClose) and await upstream.survived()):
        raise ReplyCut("the engine closed the connection within its answer")
    await connection.send(answer.ending())

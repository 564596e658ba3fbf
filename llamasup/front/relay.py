"""One request goes to an upstream, and its answer to the client, as the bytes come.

Every request has a connection of its own: kept-alive ones would pin llama-server's threads, and
closing it is how a request is cancelled, whatever it is doing. The answer's bytes are passed on
untouched; framing only counts them, so that a cut answer is never taken for a whole one.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Protocol

from llamasup import sockets
from llamasup.config.addresses import Address
from llamasup.engine.error_messages import message_of_reply, messages_in_events
from llamasup.engine.failures import Verdict
from llamasup.errors import ChildLost, ClientError, EngineFailed, LlamasupError, TooLargeForEngine
from llamasup.front.apologies import apology
from llamasup.front.connection import Connection
from llamasup.front.framing import LAST_CHUNK, Chunked, FramingError, UntilClose, chunk
from llamasup.front.openings import Opening
from llamasup.front.replies import LONGEST_HEAD, ReplyHead, read_head
from llamasup.front.requests import END_OF_HEAD, Request

log = logging.getLogger(__name__)

_SMALL_BODY = 64 << 10
_LONGEST_VERDICT = 64 << 10


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

    Before the client has seen a byte of it, it raises ChildLost, or RanOutOfMemory where the
    answer was that, or another error where the answer is none to what the client has seen already.
    Afterwards a stream that breaks off ends with an error event, and anything else raises
    ReplyCut. ClientLeft when the client is gone. Cancelled, it closes the upstream's connection
    at once.
    """
    sock = await _dial(upstream)
    try:
        await _send_request(sock, request.forwarded(target, upstream.withheld), request.body)
        head, data = await _receive_head(sock)
        if head.status >= 400:
            data = await _read_verdict(sock, upstream, head, request, data)
        elif head.is_event_stream and not data and not head.framing(request).done:
            # llama-server sends it before it has read the prompt: it promises nothing yet.
            data = await _receive(sock)
        if not opening.suits(head):
            raise _refusal(head, request, data)
        await _pass_on(connection, request, upstream, sock, head, data, opening)
    finally:
        sock.close()


async def _dial(upstream: Upstream) -> socket.socket:
    try:
        return await sockets.dial(upstream.address)
    except OSError as error:
        raise ChildLost(f"{upstream} cannot be reached: {error.strerror}") from error


async def _send_request(sock: socket.socket, head: bytes, body: bytes | bytearray) -> None:
    """Send all, or as much as is taken: who refuses a request may say why before it is read."""
    try:
        if len(body) <= _SMALL_BODY:
            await sockets.send(sock, head + body)
        else:
            await sockets.send(sock, head)
            await sockets.send(sock, body)
    except OSError:
        return


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
    data = b""
    while True:
        end = data.find(END_OF_HEAD)
        if end < 0:
            if len(data) > LONGEST_HEAD:
                raise ChildLost("the engine's reply has no end of headers")
            data += await _receive(sock)
            continue
        split = end + len(END_OF_HEAD)
        head = read_head(data[:split])
        data = data[split:]
        if head.status >= 200:
            return head, data


async def _read_verdict(
    sock: socket.socket, upstream: Upstream, head: ReplyHead, request: Request, data: bytes
) -> bytes:
    """Read a bad answer whole (within reason) before anybody sees it: it may be worth a retry."""
    body = head.framing(request)
    try:
        body.feed(data)
        while not body.done and len(data) < _LONGEST_VERDICT:
            if not (more := await sockets.receive(sock)):
                break
            body.feed(more)
            data += more
    except (FramingError, OSError) as error:
        raise ChildLost(f"the engine broke off: {error}") from error
    message = _message(head, request, data)
    match upstream.verdict(head.status, message, len(request.body)):
        case Verdict.OUT_OF_MEMORY:
            raise RanOutOfMemory(message)
        case Verdict.TOO_LARGE:
            raise _too_large(request)
    return data


def _too_large(request: Request) -> TooLargeForEngine:
    return TooLargeForEngine(
        f"the engine has no memory for a body of {len(request.body) >> 20} MiB:"
        " send less at once, or in parts"
    )


def _message(head: ReplyHead, request: Request, data: bytes) -> str:
    """The upstream's own words in a bad answer."""
    body = head.framing(request)
    if isinstance(body, Chunked):
        body.payload = bytearray()
        body.feed(data)
        return message_of_reply(bytes(body.payload))
    return message_of_reply(data[: body.feed(data)])


def _refusal(head: ReplyHead, request: Request, data: bytes) -> LlamasupError:
    """The engine's answer as an error, for a client that expects the events of a stream."""
    if head.status < 400:
        return EngineFailed("the engine did not answer with a stream")
    words = _message(head, request, data) or f"the engine answered with status {head.status}"
    return ClientError(words) if head.status < 500 else EngineFailed(words)


class _AsItCame:
    """The framing that came suits the client: pass it on."""

    def __init__(self, head: ReplyHead, request: Request) -> None:
        self.body = head.framing(request)
        self.framing_line: bytes | None = None
        if isinstance(self.body, Chunked):
            self.framing_line = b"Transfer-Encoding: chunked"
        elif head.length is not None:
            self.framing_line = b"Content-Length: %d" % head.length

    def dress(self, data: bytes) -> bytes:
        taken = self.body.feed(data)
        if taken < len(data):
            log.warning("an engine sent %d bytes after its reply's end", len(data) - taken)
            return data[:taken]
        return data

    def apology(self, event: bytes) -> bytes:
        """What to send after a cut, so that the answer ends properly; nothing if it cannot."""
        return b""

    ending = b""


class _Streamed(_AsItCame):
    """Server-sent events: passed on in whole chunks, so that an error event may follow any."""

    def __init__(self, head: ReplyHead, request: Request, upstream: Upstream) -> None:
        super().__init__(head, request)
        self._upstream = upstream
        self._size = len(request.body)
        self._held = b""
        self._between_events = True

    def dress(self, data: bytes) -> bytes:
        assert isinstance(self.body, Chunked)
        # A comment, llama-server's ping, is no progress.
        if b"data:" in data:
            self._upstream.progressed()
        data = super().dress(data)
        edge = self.body.edge
        if edge == len(data) and not self._held:
            whole = data
        else:
            whole = self._held + data[:edge] if edge else b""
            self._held = data[edge:] if edge else self._held + data
        if whole:
            self._between_events = whole.endswith(b"\n\n\r\n")
            if b"error" in whole:
                self._heed_errors(whole)
        return whole

    def _heed_errors(self, events: bytes) -> None:
        for message in messages_in_events(events):
            if self._upstream.verdict(500, message, self._size) is Verdict.OUT_OF_MEMORY:
                self._upstream.out_of_memory(message)

    def apology(self, event: bytes) -> bytes:
        if not self._between_events:
            return b""
        return chunk(event) + LAST_CHUNK


class _Unchunked(_AsItCame):
    """HTTP/1.0 knows no chunks: the content alone, until the connection ends."""

    def __init__(self, head: ReplyHead, request: Request) -> None:
        super().__init__(head, request)
        self._content = bytearray()
        self.body = Chunked(self._content)
        self.framing_line = None

    def dress(self, data: bytes) -> bytes:
        super().dress(data)
        content = bytes(self._content)
        self._content.clear()
        return content


class _Rechunked(_AsItCame):
    """A body until close gets chunks, so that its end can be told from a cut."""

    def __init__(self, head: ReplyHead, request: Request) -> None:
        super().__init__(head, request)
        self.framing_line = b"Transfer-Encoding: chunked"

    def dress(self, data: bytes) -> bytes:
        return chunk(data)

    ending = LAST_CHUNK


def _dressed(head: ReplyHead, request: Request, upstream: Upstream) -> _AsItCame:
    body = head.framing(request)
    if request.http_1_0 and isinstance(body, Chunked):
        return _Unchunked(head, request)
    if not request.http_1_0 and isinstance(body, UntilClose):
        return _Rechunked(head, request)
    if isinstance(body, Chunked) and head.is_event_stream:
        return _Streamed(head, request, upstream)
    return _AsItCame(head, request)


async def _pass_on(
    connection: Connection,
    request: Request,
    upstream: Upstream,
    sock: socket.socket,
    head: ReplyHead,
    data: bytes,
    opening: Opening,
) -> None:
    dressed = _dressed(head, request, upstream)
    try:
        first = dressed.dress(data)
    except FramingError as error:
        raise ChildLost(f"the engine's answer is badly framed: {error}") from error
    await connection.send(opening.head(head, dressed.framing_line) + first)
    try:
        await _pass_body(connection, upstream, sock, dressed)
    except ReplyCut as cut:
        path = request.target.partition(b"?")[0]
        end = dressed.apology(apology(path, ChildLost(str(cut))))
        if not end:
            raise
        log.warning("a stream was cut, and ended with an error event: %s", cut)
        await connection.send(end)
    else:
        if dressed.ending:
            await connection.send(dressed.ending)


async def _pass_body(
    connection: Connection, upstream: Upstream, sock: socket.socket, dressed: _AsItCame
) -> None:
    body = dressed.body
    try:
        while not body.done:
            data = await sockets.receive(sock)
            if not data:
                break
            part = dressed.dress(data)
            if part and (rest := connection.send_now(part)):
                with upstream.held_up():
                    await connection.send_slowly(rest)
    except (FramingError, OSError) as error:
        raise ReplyCut(f"the engine broke off its answer: {error}") from error
    if not body.done and not (isinstance(body, UntilClose) and await upstream.survived()):
        raise ReplyCut("the engine closed the connection within its answer")

"""One request goes to an upstream, and its answer to the client, as the bytes come.

Every request has a connection of its own: kept-alive ones would pin llama-server's threads, and
closing it is how a request is cancelled, whatever it is doing. The answer's bytes are passed on
untouched; framing only counts them, so that a cut answer is never taken for a whole one.
"""

from __future__ import annotations

import logging
import socket
from typing import Protocol

from llamasup import sockets
from llamasup.config.addresses import Address
from llamasup.errors import ChildLost
from llamasup.front.connection import Connection
from llamasup.front.framing import Chunked, FramingError, UntilClose
from llamasup.front.replies import LONGEST_HEAD, ReplyHead, read_head, rewritten
from llamasup.front.requests import END_OF_HEAD, Request

log = logging.getLogger(__name__)

_SMALL_BODY = 64 << 10


class ReplyCut(Exception):
    """The upstream broke off after the client had seen the beginning of the answer."""


class Upstream(Protocol):
    """Whoever can answer a request: a leased child, or control."""

    @property
    def address(self) -> Address:
        """Where it listens."""

    async def survived(self) -> bool:
        """Is it still well, now that it has closed a connection without a word?"""


async def relay(
    connection: Connection,
    request: Request,
    upstream: Upstream,
    target: bytes,
    extra: list[bytes],
) -> None:
    """Send `request` to `upstream` as `target`, and the answer to the client.

    Raises ChildLost before the client has seen a byte, ReplyCut afterwards, ClientLeft when it is
    gone. Cancelled, it closes the upstream's connection at once.
    """
    sock = await _dial(upstream.address)
    try:
        await _send_request(sock, request.forwarded(target), request.body)
        head, data = await _receive_head(sock)
        await _pass_on(connection, request, upstream, sock, head, data, extra)
    finally:
        sock.close()


async def _dial(address: Address) -> socket.socket:
    try:
        return await sockets.dial(address)
    except OSError as error:
        raise ChildLost(f"the engine cannot be reached: {error.strerror}") from error


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


async def _receive_head(sock: socket.socket) -> tuple[ReplyHead, bytes]:
    """The reply's head, and what came of its body with it. Interim replies are passed over."""
    data = b""
    while True:
        end = data.find(END_OF_HEAD)
        if end < 0:
            if len(data) > LONGEST_HEAD:
                raise ChildLost("the engine's reply has no end of headers")
            try:
                more = await sockets.receive(sock)
            except OSError as error:
                raise ChildLost(f"the engine broke off: {error.strerror}") from error
            if not more:
                raise ChildLost("the engine closed the connection without an answer")
            data += more
            continue
        split = end + len(END_OF_HEAD)
        head = read_head(data[:split])
        data = data[split:]
        if head.status >= 200:
            return head, data


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

    ending = b""


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
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""

    ending = b"0\r\n\r\n"


def _dressed(head: ReplyHead, request: Request) -> _AsItCame:
    body = head.framing(request)
    if request.http_1_0 and isinstance(body, Chunked):
        return _Unchunked(head, request)
    if not request.http_1_0 and isinstance(body, UntilClose):
        return _Rechunked(head, request)
    return _AsItCame(head, request)


async def _pass_on(
    connection: Connection,
    request: Request,
    upstream: Upstream,
    sock: socket.socket,
    head: ReplyHead,
    data: bytes,
    extra: list[bytes],
) -> None:
    dressed = _dressed(head, request)
    body = dressed.body
    try:
        first = dressed.dress(data)
        await connection.send(rewritten(head, request, dressed.framing_line, extra) + first)
        while not body.done:
            data = await sockets.receive(sock)
            if not data:
                break
            await connection.send(dressed.dress(data))
    except (FramingError, OSError) as error:
        raise ReplyCut(f"the engine broke off its answer: {error}") from error
    if not body.done and not (isinstance(body, UntilClose) and await upstream.survived()):
        raise ReplyCut("the engine closed the connection within its answer")
    if dressed.ending:
        await connection.send(dressed.ending)

"""Connections to upstreams, on raw non-blocking sockets.

For each request trio's own sockets cost twice as much as these: here the kernel is asked first, and
trio only waits when the kernel says "not now".
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from contextlib import suppress

import trio

from llamasup.config.addresses import Address, TcpAddress, UnixAddress
from llamasup.http.tls import Session, TlsFailed

_BUFFER = memoryview(bytearray(64 << 10))
"""All reads share this buffer, and what came is copied at once. If each read had its own buffer,
cut down to the little that came, the heap would be fragmented after some hours."""

AT_ONCE = len(_BUFFER)
_CROWDED_RETRY = 0.001
_CROWDED_PATIENCE = 5.0


class Wire:
    """A connection to an upstream. Closed at the end of the `with` block."""

    __slots__ = ("_is_interrupted", "_sock", "at_once")

    def __init__(self, sock: socket.socket) -> None:
        self.at_once = AT_ONCE
        """How many bytes are received at once at most."""

        self._sock = sock
        self._is_interrupted = False

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close. Calling this again is harmless."""
        self._sock.close()

    def interrupt(self) -> None:
        """Give an OSError to the task that waits, or will, for the next bytes. If they come before,
        nothing has happened. The connection itself stays as it is."""
        self._is_interrupted = True
        trio.lowlevel.notify_closing(self._sock)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`. Raises OSError. If cancelled, a part may have been sent."""
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            with suppress(trio.ClosedResourceError):  # an interruption is for those who receive
                await trio.lowlevel.wait_writable(self._sock)
            try:
                rest = rest[self._sock.send(rest) :]
            except (BlockingIOError, InterruptedError):
                continue

    async def receive(self) -> bytes:
        """The next bytes, b"" at the end. Raises OSError, also for a reset."""
        while True:
            if self._is_interrupted:
                raise ConnectionAbortedError(errno.ECONNABORTED, "it was given up")
            try:
                await trio.lowlevel.wait_readable(self._sock)
                data = read(self._sock, self.at_once)
            except (BlockingIOError, InterruptedError, trio.ClosedResourceError):
                continue
            self._is_interrupted = False
            return data


class TlsWire(Wire):
    """A connection to an upstream over TLS, from before the handshake."""

    __slots__ = ("_session",)

    def __init__(self, sock: socket.socket, session: Session) -> None:
        super().__init__(sock)
        self._session = session

    async def shake_hands(self) -> None:
        """Agree with the upstream about everything. Raises OSError, which says why not."""
        agreed = self._session.agree(b"")
        while not agreed:
            await super().send(self._session.due())
            if not (data := await super().receive()):
                raise TlsFailed(errno.ECONNRESET, "it broke off the handshake: does it speak TLS?")
            try:
                agreed = self._session.agree(data)
            except TlsFailed:
                await super().send(self._session.due())  # what is wrong, in TLS's words
                raise
        await super().send(self._session.due())

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `Wire.send`."""
        rest = memoryview(data)
        while rest:
            await super().send(self._session.sealed(rest[:AT_ONCE]))
            rest = rest[AT_ONCE:]

    async def receive(self) -> bytes:
        """See `Wire.receive`. An end that the upstream has not announced is an OSError, too: what
        came may have been cut off by anybody."""
        while not self._session.ended:
            if not (data := await super().receive()):
                raise TlsFailed(errno.ECONNRESET, "the connection was cut off")
            content = self._session.opened(data)
            if answer := self._session.due():
                await super().send(answer)
            if content:
                return bytes(content)
        return b""


async def dial_tls(address: TcpAddress, server_name: str, context: ssl.SSLContext) -> Wire:
    """A connection to `address`, where a server has to prove that it is `server_name`.

    `tls.trusting` makes the context, which should be kept: it takes 20 ms. Raises OSError. If
    cancelled, it leaves nothing open. It waits as long as the server takes.
    """
    try:
        wire = TlsWire(await _dial_tcp(address.host, address.port), Session(context, server_name))
    except OSError:
        await trio.lowlevel.checkpoint()
        raise
    try:
        await wire.shake_hands()
    except BaseException:
        wire.close()
        raise
    return wire


async def dial(address: Address) -> Wire:
    """A connection to `address`. Raises OSError. If cancelled, it leaves nothing open.

    A Unix socket accepts or refuses at once. A refusal is a checkpoint all the same: otherwise a
    caller that tries again and again would block all tasks, and could not be cancelled.
    """
    try:
        if isinstance(address, UnixAddress):
            return Wire(await _dial_unix(address.path))
        return Wire(await _dial_tcp(address.host, address.port))
    except OSError:
        await trio.lowlevel.checkpoint()
        raise


async def _dial_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        deadline = trio.current_time() + _CROWDED_PATIENCE
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                # The listener's queue is full, and the kernel does not tell when that changes.
                if trio.current_time() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "its queue stays full") from None
                await trio.sleep(_CROWDED_RETRY)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


async def _dial_tcp(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        result = sock.connect_ex((host, port))
        if result == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            raise OSError(result, os.strerror(result))
    except BaseException:
        sock.close()
        raise
    return sock


def read(sock: socket.socket, most: int = AT_ONCE) -> bytes:
    """What has come, b"" at the end. Raises BlockingIOError if nothing has, and other OSErrors."""
    return bytes(_BUFFER[: sock.recv_into(_BUFFER, most)])

"""One client's connection: how it is read, written, and ended."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import trio

from llamasup.config.schema import Seconds
from llamasup.http import wire

_LINGER = 2.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ClientLeft(Exception):
    """The client has gone, or does not read any more: an answer would not arrive."""


class Connection:
    """One client's connection. I/O goes to the socket first; trio only waits when the kernel says
    "not now"."""

    def __init__(self, sock: socket.socket, send_timeout: Seconds) -> None:
        self.inbox = bytearray()
        """What the client has sent and was not used yet."""

        self._sock = sock
        self._send_timeout = send_timeout
        self._owed: memoryview | None = None
        self._peer: str | None = None

    @property
    def peer(self) -> str:
        """The client's address, without its port; all clients of a Unix socket have the same.

        It is remembered, because the kernel forgets it when the client has left.
        """
        if self._peer is None:
            try:
                name = self._sock.getpeername()
            except OSError as error:
                raise ClientLeft from error
            self._peer = str(name[0]) if isinstance(name, tuple) else "unix"
        return self._peer

    @property
    def has_arrived(self) -> bool:
        """Has the client sent something that is still in the kernel's buffer?"""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing has come, or the client has gone
            return False

    async def open(self, patience: Seconds) -> None:
        """Agree with the client about how to speak, in so much time. Here there is nothing to agree
        about. Raises ClientLeft."""

    async def arrival(self) -> None:
        """Wait until the inbox has grown. Raises ClientLeft if the client has ended the
        connection."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            if self.look():
                return

    def look(self) -> bool:
        """Put what has come into the inbox. Returns whether it has grown. Raises ClientLeft if the
        client has ended the connection."""
        data = self._came()
        self.inbox += data
        return bool(data)

    def _came(self) -> bytes:
        """What has come, b"" if nothing has. Raises ClientLeft if the client has ended the
        connection."""
        try:
            data = wire.read(self._sock)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise ClientLeft from error
        if not data:
            raise ClientLeft
        return data

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`. Raises ClientLeft, also when nothing moved for `send_timeout`.

        Waiting here is the back-pressure: meanwhile the relay reads nothing. If this is cancelled,
        a part may have been sent; the next `send` begins with the rest.
        """
        if rest := self.send_now(data):
            await self.send_slowly(rest)

    def send_in_passing(self, data: bytes) -> None:
        """Send without waiting. The next `send` begins with what the kernel does not take now.

        While there is such a rest the client does not read, and more calls send nothing. Raises
        ClientLeft.
        """
        if not self._owed:
            self._owed = self.send_now(data)

    def send_now(self, data: bytes | bytearray | memoryview) -> memoryview | None:
        """Send what the kernel takes at once, and return the rest if there is one. If an earlier
        rest is still unsent, send nothing, and return both together.

        Raises ClientLeft.
        """
        if self._owed:
            return memoryview(bytes(self._owed) + data)
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise ClientLeft from error
        return memoryview(data)[sent:] if sent < len(data) else None

    async def send_slowly(self, data: memoryview) -> None:
        """Send all of `data` as fast as the client takes it; see `send`."""
        self._owed = data
        while self._owed:
            with trio.move_on_after(self._send_timeout) as patience:
                await trio.lowlevel.wait_writable(self._sock)
            if patience.cancelled_caught:
                raise ClientLeft
            try:
                self._owed = self._owed[self._sock.send(self._owed) :]
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise ClientLeft from error

    async def finish(self) -> None:
        """End our side and discard what still comes, for two seconds at most.

        Closing at once with unread bytes would reset the connection, and the client might lose the
        reply that says what was wrong.
        """
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return
        with trio.move_on_after(_LINGER), suppress(ClientLeft):
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                self._came()

    def reset(self) -> None:
        """Close so that the client sees a broken connection, never a clean end."""
        with suppress(OSError):  # macOS: the client has reset it already
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()

    def close(self) -> None:
        """Close. Calling this again is harmless."""
        self._sock.close()

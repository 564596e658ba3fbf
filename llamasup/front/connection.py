"""One client's connection: its only reader, its only writer, and how it ends.

A single task (`watch`) reads for as long as the connection lives. So a client that leaves is
noticed at once, whatever its request is waiting for, and a request costs no task of its own
(a watcher per request was measured: 12 µs each). What comes while a request is being answered is
the next one, pipelined, and is kept.
"""

from __future__ import annotations

import socket
import struct

import trio

from llamasup.config.schema import Server

_READ_SIZE = 64 << 10
_ENOUGH_UNREAD = 256 << 10
_LINGER = 2.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ClientLeft(Exception):
    """The client has gone, or takes nothing any more: there is nobody to answer."""


class Connection:
    """Raw non-blocking socket I/O; trio is asked only when the kernel says "not now"."""

    def __init__(self, sock: socket.socket, settings: Server) -> None:
        self.inbox = bytearray()
        """What the client sent and nobody took yet. Whoever takes, calls `took`."""

        self._sock = sock
        self._send_timeout = settings.send_timeout
        self._enough_unread = max(_ENOUGH_UNREAD, settings.max_head)
        self._arrival = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    async def watch(self, conversation: trio.CancelScope) -> None:
        """Read until the client leaves (FIN, RST or half-close), then cancel `conversation`.

        With 256 KiB unread (or `max_head`, if that is more) it stops reading, and so watching,
        until some of that was taken.
        """
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                data = self._sock.recv(_READ_SIZE)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                break
            if not data:
                break
            self.inbox += data
            self._arrival.unpark()
            while len(self.inbox) >= self._enough_unread:
                await self._room.park()
        conversation.cancel()

    async def arrival(self) -> None:
        """Wait until the inbox has grown. A client that leaves cancels instead."""
        await self._arrival.park()

    def took(self) -> None:
        """Some of the inbox was taken: there is room again."""
        self._room.unpark()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`. Raises ClientLeft, also when nothing moved for `send_timeout`.

        Waiting here is the back-pressure: who relays reads no further meanwhile. Cancelled, a
        part may have been sent.
        """
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise ClientLeft from error
        if sent < len(data):
            await self._send_slowly(memoryview(data)[sent:])

    async def _send_slowly(self, data: memoryview) -> None:
        while data:
            with trio.move_on_after(self._send_timeout) as patience:
                await trio.lowlevel.wait_writable(self._sock)
            if patience.cancelled_caught:
                raise ClientLeft
            try:
                data = data[self._sock.send(data) :]
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise ClientLeft from error

    async def finish(self) -> None:
        """End our side and discard what still comes, for two seconds at most.

        Closing at once with unread bytes would reset the connection, and the client might lose
        the reply that told it what was wrong.
        """
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return
        with trio.move_on_after(_LINGER):
            while True:
                self.inbox.clear()
                self.took()
                await self.arrival()

    def reset(self) -> None:
        """Close so that the client sees a broken connection, never a clean end."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()

    def close(self) -> None:
        """Close. Doing it again is harmless."""
        self._sock.close()

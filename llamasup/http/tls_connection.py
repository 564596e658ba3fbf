"""One client's connection over TLS.

It differs from a plain one only in what is done to the bytes: what is sealed but not sent waits as
what is not sealed does, and a client that leaves is noticed by the same signs.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import trio

from llamasup.config.schema import Seconds
from llamasup.errors import MalformedRequest
from llamasup.http.connection import ClientLeft, Connection
from llamasup.http.tls import Plain, Session, TlsFailed

log = logging.getLogger(__name__)

_MOST_OWED = 64 << 10
"""Bytes of TLS's own answers that a client may leave unread while it sends more."""


class SpeaksPlainly(MalformedRequest):
    """A request came in plain HTTP, where only HTTPS is spoken."""

    code = "https_required"


class TlsConnection(Connection):
    """One client's connection over TLS, from before the handshake."""

    def __init__(self, sock: socket.socket, send_timeout: Seconds, context: ssl.SSLContext) -> None:
        super().__init__(sock, send_timeout)
        self._session: Session | Plain = Session(context)

    async def open(self, patience: Seconds) -> None:
        """See `Connection.open`. A client with which nothing can be agreed counts as gone.

        Raises SpeaksPlainly for a request in plain HTTP; what is sent after that goes plainly, too.
        """
        with trio.move_on_after(patience):
            data = await self._more()
            if data[:1].isalpha():  # TLS never begins like this
                self._session = Plain()
                raise SpeaksPlainly("HTTPS is spoken here: write https:// instead of http://")
            while not await self._agree(data):
                data = await self._more()
            self.inbox += self._unsealed(b"")  # what came together with the handshake's end
            return
        raise ClientLeft

    async def _more(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            if data := self._came():
                return data

    async def _agree(self, data: bytes) -> bool:
        """Go on with the handshake. Returns whether it is done."""
        with self._failing():
            done = self._session.agree(data)
        if rest := super().send_now(self._session.due()):
            await self.send_slowly(rest)
        return done

    def look(self) -> bool:
        """See `Connection.look`."""
        if not (data := self._came()):
            return False
        content = self._unsealed(data)
        self.inbox += content
        if self._session.ended and not content:
            raise ClientLeft
        return bool(content)

    def send_now(self, data: bytes | bytearray | memoryview) -> memoryview | None:
        """See `Connection.send_now`. The rest is sealed already."""
        with self._failing():
            sealed = self._session.sealed(data)
        return super().send_now(sealed)

    async def finish(self) -> None:
        """See `Connection.finish`."""
        self._say_farewell()
        await super().finish()

    def close(self) -> None:
        """See `Connection.close`. The client is told that nothing was cut off."""
        self._say_farewell()
        super().close()

    def _unsealed(self, data: bytes) -> bytearray:
        with self._failing():
            content = self._session.opened(data)
        if due := self._session.due():
            self._owed = super().send_now(due)
            if self._owed and len(self._owed) > _MOST_OWED:
                raise ClientLeft
        return content

    def _say_farewell(self) -> None:
        if self._sock.fileno() >= 0 and not self._owed:
            with suppress(ClientLeft):
                super().send_now(self._session.farewell())

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """A block in which TLS may fail: the client is told why, and counts as gone."""
        try:
            yield
        except TlsFailed as error:
            log.debug("a client was left: %s", error.strerror)
            if not self._owed:
                with suppress(ClientLeft):
                    super().send_now(self._session.due())
            raise ClientLeft from error

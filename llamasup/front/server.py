"""The public server: accepts connections, runs each in its own task, and ends those that idle."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial

import trio

from llamasup import tending
from llamasup.errors import LlamasupError, ShuttingDown
from llamasup.front import callers
from llamasup.front.conversation import Conversation, converse
from llamasup.front.desk import Desk
from llamasup.front.guests import Guests
from llamasup.front.own_replies import error_reply
from llamasup.http.certificate import Certificate
from llamasup.http.connection import ClientLeft, Connection
from llamasup.http.disconnects import Disconnects
from llamasup.http.listeners import Listener, Listeners
from llamasup.http.tls_connection import TlsConnection
from llamasup.shortages import Spare, is_shortage, most_connections

log = logging.getLogger(__name__)

BREATH = 0.5
"""Seconds for which a resting connection is not closed for another one: its client has just
connected, or was just answered, and may be about to send a request."""

_ONE_REQUEST = 64 << 10
_PAUSE_WITHOUT_DESCRIPTORS = 0.1
_PAUSE_BETWEEN_COMPLAINTS = 10.0

_AT_ONCE = 64
"""Connections that are accepted in one go. If they were accepted one at a time, each would wait for
all other tasks in between; if many more were accepted at once, those tasks would wait."""

_STOPPING = "llamasup is stopping; ask again when it is back"

_PER_CLIENT = 2
"""Descriptors that a new client needs: one for itself, and one for the child that will answer."""


class TooManyConnections(LlamasupError):
    """`server.max_connections` are open, or as many of them as one address may have."""

    status = 503
    code = "too_many_connections"
    retry_after = 1.0


class Front:
    """The public listeners, and the conversations with all clients."""

    def __init__(self, desk: Desk, listeners: Listeners, certificate: Certificate) -> None:
        self._desk = desk
        self._listeners = listeners
        self._certificate = certificate
        self._watching = trio.CancelScope()
        self._lookout: trio.Nursery
        self._disconnects = Disconnects()
        self._guests = Guests[Conversation]()
        self._spare = Spare()
        self._silent_until = -math.inf

    async def serve(self) -> None:
        """Accept until `close`, then return when the last answer has been given.

        If this is cancelled, every connection is closed at once.
        """
        async with trio.open_nursery() as self._lookout:
            lookout = self._lookout
            lookout.start_soon(tending.again, "the lookout for clients", self._disconnects.watch)
            lookout.start_soon(
                tending.again, "the end of idle connections", end_idle, self._guests, self._desk
            )
            if self._desk.keepalive is not None:
                lookout.start_soon(tending.again, "the keepalive", self._desk.keepalive.run)
            async with trio.open_nursery() as conversations:
                while not self._desk.closing:
                    await self._listen(conversations)
            lookout.cancel_scope.cancel()

    async def _listen(self, conversations: trio.Nursery) -> None:
        with trio.CancelScope() as self._watching:
            async with trio.open_nursery() as listening:
                for listener in self._listeners:
                    listening.start_soon(
                        tending.again, "a listener", self._accept, listener, conversations
                    )
                await trio.sleep_forever()

    def listen(self, addresses: Sequence[str]) -> None:
        """Listen on these addresses from now on; open connections stay. Only while `serve` runs.

        Raises OperatorError if that is impossible, and ShuttingDown after `close`; then everything
        stays as it was.
        """
        if self._desk.closing:
            raise ShuttingDown(_STOPPING)
        if addresses != self._desk.settings.listen:
            self._move(addresses)

    def _move(self, addresses: Sequence[str]) -> None:
        self._watching.cancel()
        self._listeners.move(addresses)

    def renew(self) -> None:
        """Use the configuration that is in effect now. Only while `serve` runs."""
        desk, before = self._desk, self._desk.keepalive
        desk.renew()
        if desk.keepalive is not None and desk.keepalive is not before:
            self._lookout.start_soon(tending.again, "the keepalive", desk.keepalive.run)

    def close(self, last_call: trio.Event) -> None:
        """Accept no more connections, and end the idle conversations; the others end after their
        answer.

        Those that have not ended at the `last_call` are broken off: a stream ends with an error
        event, a client that has seen nothing yet gets a 503, any other answer is visibly cut.
        """
        self._desk.closing = True
        self._move([])
        self._lookout.start_soon(self._end_all, last_call)

    async def _end_all(self, last_call: trio.Event) -> None:
        async for conversation in self._all():
            conversation.end_if_silent()
        await last_call.wait()
        async for conversation in self._all():
            conversation.break_off(ShuttingDown(_STOPPING))

    async def _all(self) -> AsyncIterator[Conversation]:
        """All conversations; other tasks get their turns in between."""
        for number, conversation in enumerate(self._guests):
            yield conversation
            if number % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    async def _accept(self, listener: Listener, conversations: trio.Nursery) -> None:
        while listener.sock.fileno() >= 0:
            await trio.lowlevel.wait_readable(listener.sock)
            for _ in range(_AT_ONCE):
                try:
                    sock, _ = listener.sock.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if is_shortage(error):
                        await self._free_descriptors(listener, error)
                        break
                    # Any other error only means that this client left before it was accepted.
                    continue
                try:
                    self._receive(sock, listener, conversations)
                except BaseException:
                    sock.close()
                    raise

    def _receive(
        self, sock: socket.socket, listener: Listener, conversations: trio.Nursery
    ) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            with suppress(OSError):  # macOS: the client has reset it already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._connection(sock, listener)
        try:
            place = callers.place(connection.peer)
            self._make_room_for(place)
        except ClientLeft:
            sock.close()
        except TooManyConnections as error:
            _turn_away(sock, listener, error)
        else:
            conversation = Conversation(connection, self._desk, self._guests)
            self._guests.add(conversation, place)
            conversations.start_soon(self._attend, sock, connection, conversation)

    def _connection(self, sock: socket.socket, listener: Listener) -> Connection:
        patience = self._desk.settings.send_timeout
        if listener.secure:
            return TlsConnection(sock, patience, self._certificate.context)
        return Connection(sock, patience)

    def _make_room_for(self, place: str) -> None:
        """Make room for a client from `place`, if need be by closing a resting connection. Raises
        TooManyConnections."""
        guests, most = self._guests, most_connections(self._desk.settings.max_connections)
        while guests.is_full_for(place, most):
            if not self._dismiss(lambda: guests.to_close_for(place, most)):
                raise TooManyConnections(
                    "too many connections are open from one address: three quarters of"
                    " server.max_connections are the most that it may have; close some"
                    if guests.has_its_share(place, most)
                    else "too many connections are open (server.max_connections): come later"
                )

    def _dismiss(self, choice: Callable[[], Conversation | None]) -> bool:
        """Close the resting connection that `choice` returns. False if none could be closed."""
        while conversation := choice():
            if conversation.silent and trio.current_time() - conversation.idle_since < BREATH:
                return False  # none rests longer, and its request may be on its way
            if conversation.end_if_silent():
                return True
        return False

    async def _free_descriptors(self, listener: Listener, shortage: OSError) -> None:
        """No descriptor is left: close resting connections, or else turn the new one away."""
        if (now := trio.current_time()) >= self._silent_until:
            log.error("cannot accept a connection: %s", shortage.strerror)
            self._silent_until = now + _PAUSE_BETWEEN_COMPLAINTS
        if sum(self._dismiss(self._guests.to_close) for _ in range(_PER_CLIENT)):
            await trio.lowlevel.checkpoint()  # so that they close
            return
        self._spare.give_up()
        try:
            sock, _ = listener.sock.accept()
        except OSError:
            await trio.sleep(_PAUSE_WITHOUT_DESCRIPTORS)
        else:
            sock.setblocking(False)
            error = TooManyConnections(f"too much is open ({shortage.strerror}); come later")
            _turn_away(sock, listener, error)
        finally:
            self._spare.keep()

    async def _attend(
        self, sock: socket.socket, connection: Connection, conversation: Conversation
    ) -> None:
        try:
            with self._disconnects.cancelling(sock):
                await converse(connection, conversation)
        except Exception:
            # A bug in one conversation must not end the others.
            log.exception("a conversation failed")
        finally:
            connection.close()
            self._guests.remove(conversation)


async def end_idle(guests: Guests[Conversation], desk: Desk) -> None:
    """End every conversation that rests for `server.idle_timeout`, or up to an eighth longer."""
    while True:
        await desk.pause(desk.settings.idle_timeout / 8)
        since = trio.current_time() - desk.settings.idle_timeout
        rests_for_long = partial(_rests_since, since)
        while idle := guests.resting(rests_for_long, _AT_ONCE):
            for conversation in idle:
                conversation.end_if_silent()
            await trio.lowlevel.checkpoint()


def _rests_since(time: float, conversation: Conversation) -> bool:
    return conversation.idle_since <= time


def _turn_away(sock: socket.socket, listener: Listener, error: TooManyConnections) -> None:
    with sock, suppress(OSError):
        if listener.secure:
            return  # words would take a handshake
        sock.send(error_reply(error, None, []))
        sock.shutdown(socket.SHUT_WR)
        # Closing with an unread request would send a reset, which may overtake the reply.
        sock.recv(_ONE_REQUEST)

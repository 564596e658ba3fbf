"""Listens on the public addresses, and gives each connection a task of its own."""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

import trio

from llamasup import tending
from llamasup.config.addresses import Address, TcpAddress, UnixAddress, parse_address
from llamasup.config.schema import Server
from llamasup.errors import LlamasupError, OperatorError, ShuttingDown
from llamasup.front import callers
from llamasup.front.conversation import Conversation, Desk, converse
from llamasup.front.guests import Guests
from llamasup.front.own_replies import error_reply
from llamasup.http.connection import ClientLeft, Connection
from llamasup.http.disconnects import Departures
from llamasup.shortages import Spare, is_shortage, most_connections

log = logging.getLogger(__name__)

_BACKLOG = 4096
BREATH = 0.5
"""Seconds that nobody is sent away for resting: whoever came just now is about to ask."""

_ONE_REQUEST = 64 << 10
_PAUSE_WITHOUT_DESCRIPTORS = 0.1
_PAUSE_BETWEEN_COMPLAINTS = 10.0

_AT_ONCE = 64
"""Connections that are accepted in one go. One at a time, each would wait for all that the others
have to do meanwhile; many more would hold these up."""

_COME_AGAIN_AFTER = 5.0

_OF_A_NEWCOMER = 2
"""Descriptors: its own, and that of the child that it will ask."""


class TooManyConnections(LlamasupError):
    """`server.max_connections` are open, or as many of them as one address may have."""

    status = 503
    code = "too_many_connections"
    retry_after = 1.0


class Doors:
    """The public addresses that we listen on, until the end of the `with` block."""

    def __init__(self) -> None:
        self._open: dict[str, list[socket.socket]] = {}

    def __enter__(self) -> Doors:
        return self

    def __exit__(self, *_: object) -> None:
        self.move([])

    @property
    def listeners(self) -> list[socket.socket]:
        """Every socket that somebody may knock at."""
        return [listener for listeners in self._open.values() for listener in listeners]

    def move(self, addresses: Sequence[str]) -> None:
        """Listen on these addresses from now on, and on no others.

        Raises OperatorError if that cannot be; then everything is as it was.
        """
        new = [address for address in dict.fromkeys(addresses) if address not in self._open]
        old = [address for address in self._open if address not in addresses]
        try:
            opened = _opened(new)
        except OperatorError:
            # An old address may be in the way of a new one, as "127.0.0.1:80" is of ":80".
            self._close(old)
            try:
                opened = _opened(new)
            except OperatorError:
                self._reopen(old)
                raise
        else:
            self._close(old)
        self._open |= opened

    def _reopen(self, addresses: Iterable[str]) -> None:
        """As many of them as can be: somebody may have taken one in between."""
        for address in addresses:
            try:
                self._open |= _opened([address])
            except OperatorError as error:
                log.error("%s", error)

    def _close(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            for listener in self._open.pop(address):
                _close(listener)


def _opened(addresses: Iterable[str]) -> dict[str, list[socket.socket]]:
    """All of them, or none."""
    opened: dict[str, list[socket.socket]] = {}
    try:
        for text in addresses:
            address = parse_address(text)
            try:
                opened[text] = _bind(address)
            except (OSError, UnicodeError) as error:  # the latter is of hosts that cannot be
                why = error.strerror if isinstance(error, OSError) else error
                raise OperatorError(
                    f"cannot listen on {address}: {why}; choose another address with"
                    " --listen or server.listen"
                ) from error
    except OperatorError:
        for listeners in opened.values():
            for listener in listeners:
                _close(listener)
        raise
    return opened


def _bind(address: Address) -> list[socket.socket]:
    if isinstance(address, UnixAddress):
        return [_bind_unix(address)]
    return _bind_tcp(address)


def _bind_unix(address: UnixAddress) -> socket.socket:
    _remove_stale(address.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address.path)
        return _listening(listener)
    except BaseException:
        listener.close()
        raise


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on; one that somebody does, binding will report."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        os.unlink(path)


def _bind_tcp(address: TcpAddress) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    found = socket.getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    for family, kind, protocol, _, where in dict.fromkeys(found):
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(where)
            listeners.append(_listening(listener))
        except OSError as error:
            listener.close()
            # A machine without IPv6 still resolves to its addresses.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or len(found) == 1:
                for earlier in listeners:
                    earlier.close()
                raise
    if not listeners:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return listeners


def _listening(listener: socket.socket) -> socket.socket:
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _close(listener: socket.socket) -> None:
    if listener.fileno() >= 0 and isinstance(address := bound_address(listener), UnixAddress):
        with suppress(OSError):
            os.unlink(address.path)
    listener.close()


def bound_address(listener: socket.socket) -> Address:
    """Where it really listens: port 0 has become a number."""
    if listener.family == socket.AF_UNIX:
        return UnixAddress(listener.getsockname())
    host, port = listener.getsockname()[:2]
    return TcpAddress(host, port)


class Front:
    """The doors and the conversations behind them."""

    def __init__(self, desk: Desk, doors: Doors) -> None:
        self._desk = desk
        self._doors = doors
        self._watching = trio.CancelScope()
        self._lookout: trio.Nursery
        self._departures = Departures()
        self._guests = Guests[Conversation]()
        self._spare = Spare()
        self._silent_until = -math.inf

    async def serve(self) -> None:
        """Accept until `close`, then return when the last answer has been given.

        Cancelled, every connection is closed at once.
        """
        async with trio.open_nursery() as self._lookout:
            lookout = self._lookout
            lookout.start_soon(tending.again, "the lookout for clients", self._departures.watch)
            lookout.start_soon(
                tending.again, "the end of the idle", end_idle, self._guests, self._desk
            )
            if self._desk.comforter is not None:
                lookout.start_soon(tending.again, "the comforter", self._desk.comforter.run)
            async with trio.open_nursery() as conversations:
                while not self._desk.closing:
                    await self._watch_doors(conversations)
            lookout.cancel_scope.cancel()

    async def _watch_doors(self, conversations: trio.Nursery) -> None:
        with trio.CancelScope() as self._watching:
            async with trio.open_nursery() as doors:
                for listener in self._doors.listeners:
                    doors.start_soon(tending.again, "a door", self._accept, listener, conversations)
                await trio.sleep_forever()

    def move(self, addresses: Sequence[str]) -> None:
        """Listen elsewhere; connections that are open stay. Raises OperatorError as Doors do."""
        self._watching.cancel()
        self._doors.move(addresses)

    def adopt(self, settings: Server, max_replays: int) -> None:
        """Listen and answer by these from now on; while it serves.

        Raises OperatorError if it cannot listen there, and ShuttingDown once it is closed; then
        everything is as it was.
        """
        desk = self._desk
        if desk.closing:
            raise ShuttingDown("llamasup is stopping")
        if settings.listen != desk.settings.listen:
            self.move(settings.listen)
        before = desk.comforter
        desk.adopt(settings, max_replays)
        if desk.comforter is not None and desk.comforter is not before:
            self._lookout.start_soon(tending.again, "the comforter", desk.comforter.run)

    def close(self, last_call: trio.Event) -> None:
        """Accept no more and end the idle conversations; the others end after their answer.

        Those that have not at the `last_call` are broken off: a stream ends with an error event,
        who has seen nothing yet gets a 503, any other answer looks cut.
        """
        self._desk.closing = True
        self.move([])
        self._lookout.start_soon(self._end_all, last_call)

    async def _end_all(self, last_call: trio.Event) -> None:
        async for conversation in self._all():
            conversation.end_if_silent()
        await last_call.wait()
        async for conversation in self._all():
            why = ShuttingDown("llamasup is stopping")
            why.retry_after = _COME_AGAIN_AFTER
            conversation.break_off(why)

    async def _all(self) -> AsyncIterator[Conversation]:
        """All that are in, and between them everybody else has a turn."""
        for number, conversation in enumerate(self._guests):
            yield conversation
            if number % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    async def _accept(self, listener: socket.socket, conversations: trio.Nursery) -> None:
        while listener.fileno() >= 0:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(_AT_ONCE):
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if is_shortage(error):
                        await self._do_without(listener, error)
                        break
                    # Anything else is about the one client that left before it was accepted.
                    continue
                try:
                    self._receive(sock, conversations)
                except BaseException:
                    sock.close()
                    raise

    def _receive(self, sock: socket.socket, conversations: trio.Nursery) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            with suppress(OSError):  # macOS: the client has reset it already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, self._desk.settings.send_timeout)
        try:
            place = callers.place(connection.peer)
            self._make_room_for(place)
        except ClientLeft:
            sock.close()
        except TooManyConnections as error:
            _turn_away(sock, error)
        else:
            conversation = Conversation(connection, self._desk, self._guests)
            self._guests.come(conversation, place)
            conversations.start_soon(self._attend, sock, connection, conversation)

    def _make_room_for(self, place: str) -> None:
        """Somebody from `place` may come in, if need be for one that rests. Raises
        TooManyConnections."""
        guests, most = self._guests, most_connections(self._desk.settings.max_connections)
        while guests.is_full_for(place, most):
            if not self._dismiss(lambda: guests.who_goes_for(place, most)):
                raise TooManyConnections(
                    "too many connections are open from one address: three quarters of"
                    " server.max_connections are the most that it may have"
                    if guests.has_its_part(place, most)
                    else "too many connections are open (server.max_connections)"
                )

    def _dismiss(self, choice: Callable[[], Conversation | None]) -> bool:
        """Send away whoever is the choice among those who rest. False if there is nobody."""
        while conversation := choice():
            if conversation.silent and trio.current_time() - conversation.idle_since < BREATH:
                return False  # it is who rests longest, and its request may be on its way
            if conversation.end_if_silent():
                return True
        return False

    async def _do_without(self, listener: socket.socket, shortage: OSError) -> None:
        """Nothing more can be opened: somebody who rests goes, or else the one that comes."""
        if (now := trio.current_time()) >= self._silent_until:
            log.error("cannot accept a connection: %s", shortage.strerror)
            self._silent_until = now + _PAUSE_BETWEEN_COMPLAINTS
        if sum(self._dismiss(self._guests.who_rests_longest) for _ in range(_OF_A_NEWCOMER)):
            await trio.lowlevel.checkpoint()  # in which they close
            return
        self._spare.give_up()
        try:
            sock, _ = listener.accept()
        except OSError:
            await trio.sleep(_PAUSE_WITHOUT_DESCRIPTORS)
        else:
            sock.setblocking(False)
            _turn_away(sock, TooManyConnections(f"too much is open ({shortage.strerror})"))
        finally:
            self._spare.keep()

    async def _attend(
        self, sock: socket.socket, connection: Connection, conversation: Conversation
    ) -> None:
        try:
            with self._departures.cancelling(sock):
                await converse(connection, conversation)
        except Exception:
            # A mistake of ours in one conversation is no reason to end the others.
            log.exception("a conversation failed")
        finally:
            connection.close()
            self._guests.go(conversation)


async def end_idle(guests: Guests[Conversation], desk: Desk) -> None:
    """End every conversation that rests for `server.idle_timeout`, or up to an eighth longer."""
    while True:
        patience = desk.settings.idle_timeout
        await trio.sleep(patience / 8)
        rests_for_long = partial(_rests_since, trio.current_time() - patience)
        while idle := guests.resting(rests_for_long, _AT_ONCE):
            for conversation in idle:
                conversation.end_if_silent()
            await trio.lowlevel.checkpoint()


def _rests_since(time: float, conversation: Conversation) -> bool:
    return conversation.idle_since <= time


def _turn_away(sock: socket.socket, error: TooManyConnections) -> None:
    with sock, suppress(OSError):
        sock.send(error_reply(error, None, []))
        sock.shutdown(socket.SHUT_WR)
        # A request left unread would make the close a reset, which may overtake the reply.
        sock.recv(_ONE_REQUEST)

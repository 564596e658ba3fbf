"""Listens on addresses, and moves to others when the configuration changes."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from attrs import frozen

from llamasup.config.addresses import Address, TcpAddress, UnixAddress, parse_address
from llamasup.errors import OperatorError

log = logging.getLogger(__name__)

_BACKLOG = 4096


@frozen
class Listener:
    """A socket that listens."""

    sock: socket.socket
    secure: bool
    """Is TLS spoken with those who come?"""

    @property
    def address(self) -> Address:
        """The address in use: port 0 has become a number."""
        if self.sock.family == socket.AF_UNIX:
            return UnixAddress(self.sock.getsockname())
        host, port = self.sock.getsockname()[:2]
        return TcpAddress(host, port, self.secure)

    def close(self) -> None:
        """Close it, and remove its file if it has one. Calling this again is harmless."""
        if self.sock.fileno() >= 0 and isinstance(address := self.address, UnixAddress):
            with suppress(OSError):
                os.unlink(address.path)
        self.sock.close()


class Listeners:
    """The sockets that listen on our addresses, until the end of the `with` block."""

    def __init__(self) -> None:
        self._open: dict[str, list[Listener]] = {}

    def __enter__(self) -> Listeners:
        return self

    def __exit__(self, *_: object) -> None:
        self.move([])

    def __iter__(self) -> Iterator[Listener]:
        """All that listen now."""
        return iter([listener for listeners in self._open.values() for listener in listeners])

    def move(self, addresses: Sequence[str]) -> None:
        """Listen on these addresses from now on, and on no others.

        Raises OperatorError if that is impossible; then everything stays as it was.
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
        """Reopen as many as possible: another program may have taken an address in between."""
        for address in addresses:
            try:
                self._open |= _opened([address])
            except OperatorError as error:
                log.error("%s", error)

    def _close(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            for listener in self._open.pop(address):
                listener.close()


def _opened(addresses: Iterable[str]) -> dict[str, list[Listener]]:
    """Open all of these addresses, or none."""
    opened: dict[str, list[Listener]] = {}
    try:
        for text in addresses:
            address = parse_address(text)
            try:
                opened[text] = _bind(address)
            except (OSError, UnicodeError) as error:  # UnicodeError: the host's name is impossible
                why = error.strerror if isinstance(error, OSError) else error
                raise OperatorError(
                    f"cannot listen on {address}: {why}; choose another address with"
                    " --listen or server.listen"
                ) from error
    except OperatorError:
        for listeners in opened.values():
            for listener in listeners:
                listener.close()
        raise
    return opened


def _bind(address: Address) -> list[Listener]:
    if isinstance(address, UnixAddress):
        return [Listener(_bind_unix(address), secure=False)]
    return [Listener(sock, address.secure) for sock in _bind_tcp(address)]


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
    """Remove a socket on which no process listens. If one does, binding reports it."""
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
            # A machine without IPv6 still resolves names to IPv6 addresses.
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

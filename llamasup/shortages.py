"""What a system may run short of: which errors say so, and how many descriptors we may have.

A shortage is temporary. It says nothing against the program that could not be started, or the child
that could not be asked.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal

log = logging.getLogger(__name__)

_SHORTAGES: Final = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),
        errno.EAGAIN,  # of processes
        errno.EADDRNOTAVAIL,  # of local ports to dial from
    }
)

_PLENTY: Final = 1 << 20
"""The most that Linux allows by default; some containers set a thousand times as much."""

_OPEN_MAX: Final = 10_240
"""macOS refuses more, though it says that its limit is infinite."""

_OF_A_CONNECTION: Final = 2
"""One descriptor for the client, and one for the child while it answers."""

_OF_ALL_ELSE: Final = 256

USUAL: Final = 4096
"""Connections, if the configuration does not say how many."""

_SCANT: Final = 4
"""Where the rest of llamasup needs nearly all descriptors, connections get a fourth of them."""


_NO_THREAD: Final = "can't start new thread"
"""Only these words tell this RuntimeError from others."""


def is_shortage(error: OSError) -> bool:
    """Does this error mean a shortage, so that the same call may succeed later?

    Callers with non-blocking sockets must catch BlockingIOError first: there EAGAIN only means
    "not now".
    """
    return error.errno in _SHORTAGES


@contextmanager
def no_thread_as_shortage() -> Iterator[None]:
    """Raise OSError where Python says RuntimeError: no thread can be started now."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error


class Spare:
    """A descriptor in reserve: it is closed when another one is needed and none is free."""

    def __init__(self) -> None:
        self._kept: int | None = None
        self.keep()

    def keep(self) -> None:
        """Open the reserve again, if a descriptor is free."""
        if self._kept is None:
            with suppress(OSError):
                self._kept = os.open(os.devnull, os.O_RDONLY)

    def give_up(self) -> None:
        """Close the reserve, if there is one: the next descriptor that is opened takes its
        place."""
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None


Connections = int | Literal["auto"]


def most_connections(wanted: Connections) -> int:
    """How many connections may be open at once: the number that is wanted, or, if that is "auto",
    the usual one or as many as the descriptors allow."""
    if wanted != "auto":
        return wanted
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return USUAL
    return min(USUAL, max((limit - _OF_ALL_ELSE) // _OF_A_CONNECTION, limit // _SCANT, 1))


def have_descriptors(connections: Connections) -> None:
    """Raise our limit on open files as far as we may; warn if the connections need more.

    Children inherit the limit. To give them the old one would take code between fork and exec. The
    high one does them no harm: llama-server polls, and the descriptors that a child opens have low
    numbers, even for a select().
    """
    limit = _raised()
    if connections == "auto":
        return
    needed = connections * _OF_A_CONNECTION + _OF_ALL_ELSE
    if limit < needed:
        log.warning(
            "server.max_connections (%d) may take %d open files, and this process may have %d:"
            ' raise the limit ("ulimit -Hn", LimitNOFILE= of a systemd unit), or lower'
            " server.max_connections",
            connections,
            needed,
            limit,
        )


def _raised() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _PLENTY
    most = _PLENTY if hard == resource.RLIM_INFINITY else min(hard, _PLENTY)
    for limit in (most, _OPEN_MAX):
        if limit > soft:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                return limit
    return soft

"""Which RPC servers answer: programs on this or other machines whose devices a model may use.

Only a connection is tried. An RPC server serves one engine at a time, and keeps other callers in a
short queue; so those that a child of ours is connected to are not called, and count as answering.
A host that does not resolve or answer costs a second, once in a while, and a thread at most.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from typing import Final

import trio

from llamasup import threads
from llamasup.config.addresses import TcpAddress
from llamasup.http.wire import dial
from llamasup.memory.gauge import Gauge
from llamasup.shortages import is_shortage

_PATIENCE: Final = 1.0
_LASTS: Final = 1.0
"""Seconds for which an answer counts: many models may have the same servers."""

_MOST_THREADS: Final = 4


class Remotes:
    """The RPC servers of all models."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._names = threads.Lane(_MOST_THREADS)
        self._known: dict[str, tuple[float, str]] = {}
        """When each server was called, and why it does not answer; "" if it does."""

    async def answering(self, servers: Sequence[str], *, anew: bool = False) -> tuple[str, ...]:
        """Those of the servers that answer, in their order. With `anew`, what was known a moment
        ago does not count.

        All are called at once, so this takes a second at most.
        """
        async with trio.open_nursery() as nursery:
            for server in set(servers) - self._gauge.occupied:
                at, _ = self._known.get(server, (-math.inf, ""))
                if anew or trio.current_time() - at >= _LASTS:
                    nursery.start_soon(self._call, server)
        silent = {server for server in servers if self.why_silent(server)}
        self._gauge.forget(silent)
        return tuple(server for server in servers if server not in silent)

    def why_silent(self, server: str) -> str:
        """Why the server did not answer when it was called last; "" if it did."""
        if server in self._gauge.occupied:
            return ""
        return self._known.get(server, (0.0, ""))[1]

    async def _call(self, server: str) -> None:
        why = f"no answer within {_PATIENCE:g} s"
        with trio.move_on_after(_PATIENCE):
            try:
                why = await self._reason(server)
            except OSError as error:
                if is_shortage(error):
                    return  # ours: what was known stands
                why = error.strerror or str(error)
        self._known[server] = trio.current_time(), why

    async def _reason(self, server: str) -> str:
        """Why it cannot be reached; "" if it can. Raises OSError."""
        host, _, port = server.rpartition(":")
        found = await self._names.run(
            _resolved, host.strip("[]"), int(port), patience=_PATIENCE, place=host
        )
        last = OSError("it has no address")
        for address in found:
            try:
                with await dial(address):
                    return ""
            except OSError as error:
                last = error
        raise last


def _resolved(host: str, port: int) -> list[TcpAddress]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [TcpAddress(str(where[0]), int(where[1])) for *_, where in found]

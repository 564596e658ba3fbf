"""Keeps clients that wait for a stream: every now and then a comment tells them what they wait for.

One task does so for all of them: waiting costs a request no task of its own, and no comment is ever
cancelled halfway.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import suppress

import trio

from llamasup.config.schema import Seconds
from llamasup.front.answer import Answer
from llamasup.http.connection import ClientLeft, Connection
from llamasup.pool.pool import Lease

log = logging.getLogger(__name__)


class Keepalive:
    """Sends each waiting client a comment, `interval` after it came, and again and again."""

    def __init__(self, interval: Seconds) -> None:
        self.interval = interval
        self._due: OrderedDict[KeptAlive, float] = OrderedDict()
        """When each of them gets its next comment, in order: the interval is the same for all."""

        self._somebody = trio.lowlevel.ParkingLot()
        self._dismissed = False

    async def run(self) -> None:
        """Send comments until cancelled, or until dismissed and no client waits."""
        while True:
            while not self._due:
                if self._dismissed:
                    return
                await self._somebody.park()
            await trio.sleep_until(next(iter(self._due.values())))
            self._speak(trio.current_time())

    def _speak(self, now: float) -> None:
        while self._due:
            client, due = next(iter(self._due.items()))
            if due > now:
                return
            self._due[client] = now + self.interval
            self._due.move_to_end(client)
            try:
                client.comment()
            except Exception:
                # One client that cannot be told must not keep the others from it.
                log.exception("a waiting client cannot be told what it waits for")

    def dismiss(self) -> None:
        """No more clients come; those that wait still get their comments."""
        self._dismissed = True
        self._somebody.unpark_all()

    def begin(self, client: KeptAlive) -> None:
        """It waits from now on."""
        self._due[client] = trio.current_time() + self.interval
        self._somebody.unpark()

    def end(self, client: KeptAlive) -> None:
        """It has what it waited for, or has given up."""
        del self._due[client]


class KeptAlive:
    """A lease whose client gets comments while it waits for it. Otherwise it is the lease."""

    def __init__(
        self, keepalive: Keepalive, lease: Lease, connection: Connection, answer: Answer
    ) -> None:
        self._keepalive = keepalive
        self._lease = lease
        self._connection = connection
        self._answer = answer

    def comment(self) -> None:
        """Tell the client how things stand. That it has left is noticed elsewhere."""
        with suppress(ClientLeft):
            self._connection.send_in_passing(self._answer.comment(self._lease.outlook()))

    async def __aenter__(self) -> Lease:
        self._keepalive.begin(self)
        try:
            return await self._lease.__aenter__()
        finally:
            self._keepalive.end(self)

    async def __aexit__(self, *error: object) -> None:
        await self._lease.__aexit__(*error)

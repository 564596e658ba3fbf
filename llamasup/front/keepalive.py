"""Tells clients that wait for a stream what they wait for, by a comment every now and then. So they
do not give up.

One task does this for all of them, so that a waiting request needs no task of its own, and no
comment is ever cancelled halfway.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import suppress

import trio

from llamasup.config.schema import Seconds
from llamasup.front.answer import Answer
from llamasup.http.connection import ClientLeft, Connection
from llamasup.pool.lease import Lease
from llamasup.pool.pool import Leasing

log = logging.getLogger(__name__)


class Keepalive:
    """Sends each waiting client a comment after each `interval` of waiting."""

    def __init__(self, interval: Seconds) -> None:
        self.interval = interval
        self._due: OrderedDict[KeptAlive, float] = OrderedDict()
        """When each waiting client gets its next comment, in that order."""

        self._has_clients = trio.lowlevel.ParkingLot()
        self._dismissed = False

    async def run(self) -> None:
        """Send comments until cancelled, or until dismissed and no client waits."""
        while True:
            while not self._due:
                if self._dismissed:
                    return
                await self._has_clients.park()
            await trio.sleep_until(next(iter(self._due.values())))
            self._send_comments(trio.current_time())

    def _send_comments(self, now: float) -> None:
        while self._due:
            client, due = next(iter(self._due.items()))
            if due > now:
                return
            self._due[client] = now + self.interval
            self._due.move_to_end(client)
            try:
                client.comment()
            except Exception:
                # A failure with one client must not keep the others from their comments.
                log.exception("a waiting client cannot be told what it waits for")

    def dismiss(self) -> None:
        """No more clients will come; those that wait still get their comments."""
        self._dismissed = True
        self._has_clients.unpark_all()

    def begin(self, client: KeptAlive) -> None:
        """This client waits from now on."""
        self._due[client] = trio.current_time() + self.interval
        self._has_clients.unpark()

    def end(self, client: KeptAlive) -> None:
        """This client does not wait any more."""
        del self._due[client]


class KeptAlive:
    """A lease whose client gets comments while it waits for the lease."""

    def __init__(
        self, keepalive: Keepalive, lease: Leasing, connection: Connection, answer: Answer
    ) -> None:
        self._keepalive = keepalive
        self._lease = lease
        self._connection = connection
        self._answer = answer

    def comment(self) -> None:
        """Tell the client what it waits for. If it has left, that is noticed elsewhere."""
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

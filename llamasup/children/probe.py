"""One small question to a child, such as `GET /health`."""

from __future__ import annotations

from contextlib import suppress

import h11
import trio

from llamasup.config.addresses import Address
from llamasup.http.wire import Wire, dial
from llamasup.shortages import is_shortage

_LONGEST_ANSWER = 4 << 20
_HEALTH_PATIENCE = 2.0


class NoAnswer(Exception):
    """The child does not listen, broke off, or did not speak HTTP."""


class NotAsked(Exception):
    """We had no descriptor or thread to ask with: that says nothing about the child."""


async def ask(address: Address, target: str) -> tuple[int, bytes]:
    """GET `target`: the status and the body. Raises NoAnswer and NotAsked.

    The caller bounds the time.
    """
    client = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET", target=target, headers=[("Host", "llamasup"), ("Connection", "close")]
    )
    try:
        with await dial(address) as wire:
            await wire.send(client.send(request) or b"")
            return await _answer(wire, client)
    except h11.ProtocolError as error:
        raise NoAnswer(str(error)) from error
    except OSError as error:
        raise (NotAsked if is_shortage(error) else NoAnswer)(str(error)) from error


async def is_healthy(address: Address) -> bool | None:
    """Does the child answer soon, and with more than "still loading"? (Some forks know no /health.)

    None if a shortage of ours kept us from asking: the child may be well.
    """
    try:
        with trio.move_on_after(_HEALTH_PATIENCE), suppress(NoAnswer):
            status, _ = await ask(address, "/health")
            return status < 500
        return False
    except NotAsked:
        return None


async def _answer(wire: Wire, client: h11.Connection) -> tuple[int, bytes]:
    status = 0
    body = bytearray()
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await wire.receive())
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _LONGEST_ANSWER:
                raise NoAnswer("the answer is too long")
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)
        elif isinstance(event, h11.ConnectionClosed):
            raise NoAnswer("the connection was closed within the answer")

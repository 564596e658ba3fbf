"""One small question to a child, such as `GET /health`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import h11
import trio

from llamasup.config.addresses import Address
from llamasup.http.wire import Wire, dial
from llamasup.shortages import is_shortage

_LONGEST_ANSWER = 4 << 20
_PATIENCE = 2.0


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


async def reach(address: Address) -> None:
    """Connect, and ask nothing. Raises NoAnswer and NotAsked."""
    try:
        with await dial(address):
            pass
    except OSError as error:
        raise (NotAsked if is_shortage(error) else NoAnswer)(str(error)) from error


async def is_well(address: Address, look: Callable[[Address], Awaitable[bool]]) -> bool | None:
    """Does the child answer soon, and well?

    None if a shortage of ours kept us from asking: the child may be well.
    """
    try:
        with trio.move_on_after(_PATIENCE), suppress(NoAnswer):
            return await look(address)
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

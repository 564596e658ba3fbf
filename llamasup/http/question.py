"""One small question over a connection of its own, such as `GET /health`."""

from __future__ import annotations

from collections.abc import Sequence

import h11

from llamasup.http.wire import Wire

_LONGEST_ANSWER = 4 << 20


class NoAnswer(Exception):
    """The other side broke off, did not speak HTTP, or went on without end."""


async def ask(
    wire: Wire, target: str, headers: Sequence[tuple[str, str]] = (("Host", "llamasup"),)
) -> tuple[int, bytes]:
    """GET `target`: the status and the body. Raises NoAnswer and OSError.

    The caller bounds the time, and closes the wire, also when this is cancelled.
    """
    client = h11.Connection(h11.CLIENT)
    try:
        request = h11.Request(
            method="GET", target=target, headers=[*headers, ("Connection", "close")]
        )
        await wire.send(client.send(request) or b"")
        return await _answer(wire, client)
    except h11.ProtocolError as error:
        raise NoAnswer(str(error)) from error


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

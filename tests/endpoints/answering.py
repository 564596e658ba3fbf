"""A server that answers each path as it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from llamasup.config.addresses import TcpAddress

Answers = Mapping[str, tuple[int, object]]


@asynccontextmanager
async def answering(answers: Answers) -> AsyncIterator[tuple[TcpAddress, list[str]]]:
    """Its address, and the heads of the requests that came. Other paths are a 404."""
    heads: list[str] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := await stream.receive_some()):
                    return
                head += more
            heads.append(head.decode())
            status, document = answers.get(heads[-1].split()[1].partition("?")[0], (404, "no"))
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            await stream.send_all(
                b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
            )

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield TcpAddress("127.0.0.1", listener.socket.getsockname()[1]), heads
        nursery.cancel_scope.cancel()

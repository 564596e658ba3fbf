"""A probe reads every legal answer whole, and calls everything else none."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from llamasup.children import probe
from llamasup.children.manners import LlamaServer
from llamasup.config.addresses import TcpAddress, UnixAddress
from llamasup.http import wire
from tests.harness import out_of_descriptors


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[TcpAddress, list[bytes]]]:
    """A server that answers everything so, and what it was asked."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            asked.append(bytes(await stream.receive_some()))
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield TcpAddress("127.0.0.1", listener.socket.getsockname()[1]), asked
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 503, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil it closes", 200, b"until it closes"),
        (b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 204 Done\r\n\r\n", 204, b""),
    ],
)
async def test_an_answer_is_read_whole(answer: bytes, status: int, body: bytes) -> None:
    async with answering(answer) as (address, asked):
        assert await probe.ask(address, "/health") == (status, body)
    assert asked[0].startswith(b"GET /health HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
        b"\x16\x03\x01 this is not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"endless" * (1 << 20),
    ],
    ids=["nothing", "half a head", "half a body", "another protocol", "too much"],
)
async def test_anything_else_is_no_answer(answer: bytes) -> None:
    async with answering(answer) as (address, _):
        with pytest.raises(probe.NoAnswer):
            await probe.ask(address, "/health")


async def test_a_child_that_does_not_listen_gives_no_answer() -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(probe.NoAnswer):
        await probe.ask(UnixAddress(f"{folder}/x.sock"), "/health")


async def test_a_probe_that_is_given_up_closes_its_connection() -> None:
    closed = trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        async with stream:
            while await stream.receive_some():
                pass
        closed.set()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, silent, [listener])
        with trio.move_on_after(0.05) as patience:
            await probe.ask(TcpAddress("127.0.0.1", listener.socket.getsockname()[1]), "/health")
        assert patience.cancelled_caught
        with trio.fail_after(5):
            await closed.wait()
        nursery.cancel_scope.cancel()


async def test_a_shortage_of_ours_says_nothing_about_the_child() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (address, _):
        with out_of_descriptors(), pytest.raises(probe.NotAsked):
            await probe.ask(address, "/health")


async def test_a_child_whose_queue_stays_full_does_not_answer(autojump_clock: MockClock) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as crowded:
        address = UnixAddress(f"{folder}/x.sock")
        crowded.bind(address.path)
        crowded.listen(0)
        with await wire.dial(address), pytest.raises(probe.NoAnswer):
            await probe.ask(address, "/health")


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 404 Unknown\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n", False),
        (b"", False),
    ],
)
async def test_what_answers_with_more_than_that_it_loads_is_healthy(
    answer: bytes, healthy: bool
) -> None:
    async with answering(answer) as (address, _):
        assert await probe.is_well(address, LlamaServer().look) is healthy


async def test_what_could_not_be_asked_may_be_healthy() -> None:
    async with answering(b"") as (address, _):
        with out_of_descriptors():
            assert await probe.is_well(address, LlamaServer().look) is None

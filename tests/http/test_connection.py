"""A connection tells that its client has left, holds back who sends too much, ends as meant."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llamasup.config.schema import Seconds
from llamasup.http.connection import ClientLeft, Connection
from tests.harness import PATIENCE


class NoOptions(socket.socket):
    """As on macOS, once its client has reset it."""

    def setsockopt(self, *_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


@asynccontextmanager
async def connected(
    send_timeout: float = PATIENCE,
) -> AsyncIterator[tuple[Connection, trio.SocketStream]]:
    """Our side of a TCP connection and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = await trio.open_tcp_stream(*listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    connection = Connection(ours, Seconds(send_timeout))
    try:
        yield connection, client
    finally:
        connection.close()
        await trio.aclose_forcefully(client)


async def received(client: trio.SocketStream) -> bytes:
    """Everything until the end; a reset raises trio.BrokenResourceError."""
    with trio.fail_after(PATIENCE):
        return b"".join([bytes(data) async for data in client])


def reset_by(client: trio.SocketStream) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.socket.close()


LEAVINGS = {
    "fin": lambda client: client.socket.close(),
    "reset": reset_by,
    "half-close": lambda client: client.socket.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("leaving", LEAVINGS)
async def test_waiting_for_a_client_that_leaves_raises(leaving: str) -> None:
    async with connected() as (connection, client):
        await client.send_all(b"a request")
        await connection.arrival()
        assert connection.inbox == b"a request"
        LEAVINGS[leaving](client)
        with trio.fail_after(PATIENCE), pytest.raises(ClientLeft):
            await connection.arrival()


async def test_a_client_that_sends_more_than_is_read_is_held_back() -> None:
    async with connected() as (connection, client), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(40 << 20))
        await wait_all_tasks_blocked(0.05)
        taken = 0
        with trio.fail_after(PATIENCE):
            while taken < 40 << 20:
                await connection.arrival()
                assert len(connection.inbox) <= 64 << 10
                taken += len(connection.inbox)
                connection.inbox.clear()
    assert taken == 40 << 20


async def test_what_is_sent_arrives_whole_at_a_client_that_reads_late() -> None:
    content = bytes(range(256)) * 40_000
    async with connected() as (connection, client), trio.open_nursery() as nursery:

        async def send() -> None:
            await connection.send(content)
            connection.close()

        nursery.start_soon(send)
        await wait_all_tasks_blocked(0.05)
        assert await received(client) == content


async def test_a_client_that_takes_nothing_any_more_is_left_after_the_send_timeout() -> None:
    async with connected(send_timeout=0.1) as (connection, _):
        with trio.fail_after(PATIENCE), pytest.raises(ClientLeft):
            await connection.send(bytes(40 << 20))


async def test_a_client_that_takes_a_little_now_and_then_is_not_left() -> None:
    async with connected(send_timeout=1) as (connection, client), trio.open_nursery() as nursery:

        async def read_slowly() -> None:
            while True:
                await client.receive_some(256 << 10)
                await trio.sleep(0.01)

        nursery.start_soon(read_slowly)
        started = trio.current_time()
        while trio.current_time() < started + 1.5:
            await connection.send(bytes(1 << 20))
        nursery.cancel_scope.cancel()


async def test_to_send_to_a_client_that_has_gone_says_so() -> None:
    async with connected() as (connection, client):
        reset_by(client)
        with trio.fail_after(PATIENCE), pytest.raises(ClientLeft):
            await connection.send(bytes(40 << 20))


async def test_what_is_sent_in_passing_never_waits_and_comes_before_what_is_sent_next() -> None:
    async with connected() as (connection, client), trio.open_nursery() as nursery:
        large = bytes(range(256)) * 160_000
        connection.send_in_passing(large)
        connection.send_in_passing(b"left out, for the client does not read")

        async def send() -> None:
            await connection.send(b"the next")
            connection.close()

        nursery.start_soon(send)
        await wait_all_tasks_blocked(0.05)
        assert await received(client) == large + b"the next"


async def test_what_is_sent_in_passing_to_a_client_that_reads_arrives_at_once() -> None:
    async with connected() as (connection, client):
        for part in (b"one", b"two"):
            connection.send_in_passing(part)
            assert await client.receive_some() == part
        await connection.send(b"three")
        assert await client.receive_some() == b"three"


async def test_a_client_is_known_by_its_address_alone() -> None:
    async with connected() as (one, _), connected() as (other, _):
        assert one.peer == other.peer == "127.0.0.1"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Connection(ours, Seconds(1)).peer == "unix"


async def test_the_address_of_a_client_that_has_gone_says_so() -> None:
    async with connected() as (connection, _):
        connection.close()
        with pytest.raises(ClientLeft):
            _ = connection.peer


async def test_the_address_of_a_client_is_known_although_it_has_gone_since() -> None:
    async with connected() as (connection, _):
        assert connection.peer == "127.0.0.1"
        connection.close()
        assert connection.peer == "127.0.0.1"


async def test_a_client_that_is_still_sending_reads_the_last_reply_before_the_end() -> None:
    async with connected() as (connection, client), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(8 << 20))
        await connection.arrival()
        await connection.send(b"enough!")
        nursery.start_soon(connection.finish)
        assert await received(client) == b"enough!"
        nursery.cancel_scope.cancel()


async def test_a_client_that_will_not_end_is_waited_for_two_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connected() as (connection, _):
        started = trio.current_time()
        await connection.finish()
        assert trio.current_time() - started == pytest.approx(2)


async def test_a_reset_never_looks_like_an_end() -> None:
    async with connected() as (connection, client):
        connection.reset()
        with pytest.raises(trio.BrokenResourceError):
            await received(client)


async def test_to_close_twice_is_harmless() -> None:
    async with connected() as (connection, client):
        connection.close()
        connection.close()
        assert await received(client) == b""


async def test_a_socket_that_takes_no_options_any_more_is_closed_all_the_same() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        stubborn = NoOptions(socket.AF_UNIX, fileno=ours.detach())
        Connection(stubborn, Seconds(PATIENCE)).reset()
        assert stubborn.fileno() == -1

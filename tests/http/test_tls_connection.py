"""Over TLS a connection keeps all that a plain one promises, and tells a cut from an end."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.config.schema import Seconds
from llamasup.http.connection import ClientLeft
from llamasup.http.tls_connection import SpeaksPlainly, TlsConnection
from tests.harness import PATIENCE

Stream = trio.SSLStream[trio.SocketStream]


@pytest.fixture(scope="module")
def serving(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextmanager
def met(
    serving: ssl.SSLContext, send_timeout: float = PATIENCE
) -> Iterator[tuple[TlsConnection, socket.socket]]:
    """Our side before the handshake, and the client's socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    client.setblocking(False)
    connection = TlsConnection(ours, Seconds(send_timeout), serving)
    with client:
        try:
            yield connection, client
        finally:
            connection.close()


@asynccontextmanager
async def connected(
    serving: ssl.SSLContext, trust: ssl.SSLContext, send_timeout: float = PATIENCE
) -> AsyncIterator[tuple[TlsConnection, Stream]]:
    """Both sides after the handshake."""
    with met(serving, send_timeout) as (connection, client):
        transport = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        stream = trio.SSLStream(transport, trust, server_hostname="127.0.0.1")
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.open, Seconds(PATIENCE))
                await stream.do_handshake()
        try:
            yield connection, stream
        finally:
            await trio.aclose_forcefully(stream)


async def received(client: Stream) -> bytes:
    """Everything until the end that is said; a cut raises trio.BrokenResourceError."""
    with trio.fail_after(PATIENCE):
        return b"".join([bytes(data) async for data in client])


def reset_by(client: Stream) -> None:
    client.transport_stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.transport_stream.socket.close()


def say_farewell(client: Stream) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        client._ssl_object.unwrap()  # type: ignore[attr-defined]
    client.transport_stream.socket._sock.send(client._outgoing.read())  # type: ignore[attr-defined]


LEAVINGS: dict[str, Callable[[Stream], object]] = {
    "fin": lambda client: client.transport_stream.socket.close(),
    "reset": reset_by,
    "half-close": lambda client: client.transport_stream.socket.shutdown(socket.SHUT_WR),
    "farewell": say_farewell,
}


@pytest.mark.parametrize("leaving", LEAVINGS)
async def test_waiting_for_a_client_that_leaves_raises(
    serving: ssl.SSLContext, trust: ssl.SSLContext, leaving: str
) -> None:
    async with connected(serving, trust) as (connection, client):
        await client.send_all(b"a request")
        await connection.arrival()
        assert connection.inbox == b"a request"
        LEAVINGS[leaving](client)
        with trio.fail_after(PATIENCE), pytest.raises(ClientLeft):
            await connection.arrival()


async def test_a_request_before_the_farewell_is_read(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async with connected(serving, trust) as (connection, client):
        await client.send_all(b"a request")
        say_farewell(client)
        client.transport_stream.socket.close()
        await connection.arrival()
        assert connection.inbox == b"a request"
        with trio.fail_after(PATIENCE), pytest.raises(ClientLeft):
            await connection.arrival()


async def test_a_client_that_sends_more_than_is_read_is_held_back(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async with (
        connected(serving, trust) as (connection, client),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send_all, bytes(20 << 20))
        await wait_all_tasks_blocked(0.05)
        taken = 0
        with trio.fail_after(PATIENCE):
            while taken < 20 << 20:
                await connection.arrival()
                assert len(connection.inbox) <= 80 << 10
                taken += len(connection.inbox)
                connection.inbox.clear()
    assert taken == 20 << 20


async def test_what_is_sent_arrives_whole_at_a_client_that_reads_late_and_knows_the_end(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    content = bytes(range(256)) * 40_000
    async with connected(serving, trust) as (connection, client):

        async def send() -> None:
            await connection.send(content)
            connection.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked(0.05)
            assert await received(client) == content


@pytest.mark.parametrize("break_off", [TlsConnection.reset, lambda ours: ours._sock.close()])
async def test_what_is_cut_never_looks_like_an_end(
    serving: ssl.SSLContext, trust: ssl.SSLContext, break_off: Callable[[TlsConnection], None]
) -> None:
    async with connected(serving, trust) as (connection, client):
        await connection.send(b"a part")
        break_off(connection)
        with pytest.raises(trio.BrokenResourceError):
            await received(client)


async def test_a_client_that_takes_nothing_any_more_is_left_after_the_send_timeout(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async with connected(serving, trust, send_timeout=0.1) as (connection, _):
        with trio.fail_after(PATIENCE), pytest.raises(ClientLeft):
            await connection.send(bytes(40 << 20))


async def test_what_is_sent_in_passing_never_waits_and_comes_before_what_is_sent_next(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async with connected(serving, trust) as (connection, client):
        large = bytes(range(256)) * 80_000
        connection.send_in_passing(large)
        connection.send_in_passing(b"left out, for the client does not read")

        async def send() -> None:
            await connection.send(b"the next")
            connection.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked(0.05)
            assert await received(client) == large + b"the next"


async def test_a_send_that_was_cancelled_is_gone_on_with_by_the_next(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    content = os.urandom(20 << 20)
    async with connected(serving, trust) as (connection, client):
        with trio.move_on_after(0.05) as impatience:
            await connection.send(content)
        assert impatience.cancelled_caught

        async def send() -> None:
            await connection.send(b"the next")
            connection.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await received(client) == content + b"the next"


async def test_a_client_that_is_still_sending_reads_the_last_reply_before_the_end(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async with (
        connected(serving, trust) as (connection, client),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send_all, bytes(8 << 20))
        await connection.arrival()
        await connection.send(b"enough!")
        nursery.start_soon(connection.finish)
        assert await received(client) == b"enough!"
        nursery.cancel_scope.cancel()


# Before the handshake is done


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_client_that_stops_in_the_handshake_is_left_in_time(
    serving: ssl.SSLContext, said: bytes, autojump_clock: MockClock
) -> None:
    with met(serving) as (connection, client):
        client.send(said)
        before = trio.current_time()
        with pytest.raises(ClientLeft):
            await connection.open(Seconds(15))
        assert trio.current_time() - before == pytest.approx(15)


@pytest.mark.parametrize("leaving", [socket.socket.close, lambda client: client.shutdown(1)])
async def test_a_client_that_leaves_in_the_handshake_is_left_at_once(
    serving: ssl.SSLContext, leaving: Callable[[socket.socket], None]
) -> None:
    with met(serving) as (connection, client):
        client.send(b"\x16\x03\x01")
        leaving(client)
        with trio.fail_after(PATIENCE), pytest.raises(ClientLeft):
            await connection.open(Seconds(PATIENCE))


async def test_a_client_that_speaks_plainly_is_told_so_plainly(serving: ssl.SSLContext) -> None:
    with met(serving) as (connection, client):
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\n")
        with pytest.raises(SpeaksPlainly, match="https://"):
            await connection.open(Seconds(PATIENCE))
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.close()
        await trio.lowlevel.wait_readable(client)
        assert client.recv(1000) == b"HTTP/1.1 400 Bad Request\r\n\r\n"


@settings(max_examples=40)
@given(st.binary(min_size=1, max_size=600))
async def test_whatever_comes_instead_of_a_handshake_only_ends_the_connection(
    serving: ssl.SSLContext, said: bytes
) -> None:
    with met(serving) as (connection, client):
        client.send(said)
        client.shutdown(socket.SHUT_WR)
        with trio.fail_after(PATIENCE), pytest.raises((ClientLeft, SpeaksPlainly)):
            await connection.open(Seconds(PATIENCE))


async def test_a_client_of_an_old_tls_is_told_why_it_is_left(serving: ssl.SSLContext) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    today = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    today.minimum_version = ssl.TLSVersion.TLSv1_3
    with met(today) as (connection, client):
        transport = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        stream = trio.SSLStream(transport, old)

        async def is_left() -> None:
            with pytest.raises(ClientLeft):
                await connection.open(Seconds(PATIENCE))

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(is_left)
                with pytest.raises(trio.BrokenResourceError) as told:
                    await stream.do_handshake()
        assert "ALERT_PROTOCOL_VERSION" in str(told.value.__cause__)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
async def test_a_request_that_comes_with_the_handshake_is_read_however_it_is_cut(
    serving: ssl.SSLContext, trust: ssl.SSLContext, sizes: list[int]
) -> None:
    came, due = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = trust.wrap_bio(came, due, server_hostname="127.0.0.1")
    with met(serving) as (connection, client):

        async def speak(data: bytes) -> None:
            turn = 0
            while data:
                size = sizes[turn % len(sizes)]
                client.send(data[:size])
                data, turn = data[size:], turn + 1
                await trio.lowlevel.checkpoint()

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.open, Seconds(PATIENCE))
                with pytest.raises(ssl.SSLWantReadError):
                    theirs.do_handshake()
                await speak(due.read())
                while True:
                    await trio.lowlevel.wait_readable(client)
                    came.write(client.recv(65536))
                    try:
                        theirs.do_handshake()
                    except ssl.SSLWantReadError:
                        continue
                    break
                theirs.write(b"a request")
                await speak(due.read())
            while not connection.inbox:
                await connection.arrival()
        assert connection.inbox == b"a request"

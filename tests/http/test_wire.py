"""Raw sockets are dialled, written and read whole, and left closed when nobody waits any more."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.config.addresses import TcpAddress, UnixAddress
from llamasup.http.wire import Wire, dial, dial_tls
from tests.harness import PATIENCE, eventually


@pytest.fixture
def path() -> Iterator[str]:
    # pytest's own folders have names too long for a socket.
    with tempfile.TemporaryDirectory(prefix="llamasup-test-") as folder:
        yield f"{folder}/x.sock"


@pytest.fixture
def listener(path: str) -> Iterator[socket.socket]:
    """A Unix listener whose queue is full with one connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        yield listener


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_unix_socket_is_dialled(path: str, listener: socket.socket) -> None:
    with await dial(UnixAddress(path)) as ours:
        theirs, _ = listener.accept()
        with theirs:
            await ours.send(b"hello")
            assert theirs.recv(9) == b"hello"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_a_port_is_dialled(family: socket.AddressFamily) -> None:
    with socket.socket(family) as listener:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        listener.listen()
        host, port = listener.getsockname()[:2]
        with await dial(TcpAddress(host, port)) as ours:
            theirs, _ = listener.accept()
            with theirs:
                theirs.sendall(b"hello")
                assert await ours.receive() == b"hello"
                assert ours._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_dialing_an_address_without_a_listener_is_an_os_error_and_leaves_nothing_open(
    path: str,
) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        before = open_files()
        with pytest.raises(ConnectionRefusedError):
            await dial(TcpAddress("127.0.0.1", unheard.getsockname()[1]))
        with pytest.raises(FileNotFoundError):
            await dial(UnixAddress(path))
        assert open_files() == before


async def test_dialing_waits_while_the_queue_is_full(path: str, listener: socket.socket) -> None:
    places: list[Wire] = []

    async def come() -> None:
        places.append(await dial(UnixAddress(path)))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(come)
            await wait_all_tasks_blocked()
            assert len(places) == 1
            listener.accept()[0].close()
    for place in places:
        with place:
            pass


async def test_dialing_gives_up_if_the_queue_stays_full(
    path: str, listener: socket.socket, autojump_clock: MockClock
) -> None:
    with await dial(UnixAddress(path)):
        before, began = open_files(), trio.current_time()
        with pytest.raises(TimeoutError):
            await dial(UnixAddress(path))
        assert 5 <= trio.current_time() - began < 6
        assert open_files() == before


async def test_a_cancelled_dial_leaves_nothing_open(path: str, listener: socket.socket) -> None:
    with await dial(UnixAddress(path)):
        before = open_files()
        with trio.move_on_after(0.02) as patience:
            await dial(UnixAddress(path))
        assert patience.cancelled_caught
        assert open_files() == before


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_much_is_sent_whole_through_a_slow_reader(
    pair: tuple[socket.socket, socket.socket], kind: type
) -> None:
    ours, theirs = pair
    message = os.urandom(3_000_000)
    received = bytearray()

    async def read() -> None:
        while data := await Wire(theirs).receive():
            received.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await Wire(ours).send(kind(message))
        ours.shutdown(socket.SHUT_WR)
    assert received == message


async def test_the_end_is_read_as_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert await Wire(ours).receive() == b""
    with pytest.raises(BrokenPipeError):
        await Wire(ours).send(b"anybody?")


async def test_a_reset_is_an_os_error(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    await Wire(ours).send(b"unread")
    theirs.close()
    with pytest.raises(ConnectionResetError):
        await Wire(ours).receive()


async def test_a_wait_for_the_next_bytes_can_be_interrupted_unless_they_have_come(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    wire = Wire(ours)

    async def wait() -> None:
        with pytest.raises(ConnectionAbortedError):
            await wire.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        wire.interrupt()
    await wait()  # it is still so
    wire = Wire(ours)
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await wire.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        theirs.send(b"a")
        await eventually(lambda: got)
    wire.interrupt()
    await wait()


async def test_a_reader_that_gives_up_takes_nothing(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    with trio.move_on_after(0.01):
        await Wire(ours).receive()
    await Wire(theirs).send(b"later")
    assert await Wire(ours).receive() == b"later"


@pytest.mark.parametrize("address", [UnixAddress("/nowhere/x.sock"), TcpAddress("127.0.0.1", 1)])
async def test_a_refused_dial_lets_other_tasks_run_and_can_be_cancelled(
    address: UnixAddress | TcpAddress,
) -> None:
    with trio.move_on_after(0.05) as trying:
        for _ in range(100_000):
            with suppress(OSError):
                await dial(address)
    assert trying.cancelled_caught


# Over TLS


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def secured(
    authority: trustme.CA, handler: Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]]
) -> AsyncIterator[TcpAddress]:
    """A TLS server by another implementation's hands."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, handler, 0, context, host="127.0.0.1")
        listeners = await nursery.start(serve)
        host, port = listeners[0].transport_listener.socket.getsockname()
        yield TcpAddress(host, port)
        nursery.cancel_scope.cancel()


async def test_much_goes_both_ways_over_tls(authority: trustme.CA, trust: ssl.SSLContext) -> None:
    message = os.urandom(2_000_000)

    async def echo(stream: trio.SSLStream[trio.SocketStream]) -> None:
        got = b""
        while len(got) < len(message):
            got += await stream.receive_some()
        await stream.send_all(got)
        await stream.aclose()

    async with secured(authority, echo) as address:
        with trio.fail_after(PATIENCE), await dial_tls(address, "127.0.0.1", trust) as wire:
            await wire.send(message)
            received = b""
            while data := await wire.receive():
                received += data
    assert received == message


async def test_an_end_that_was_not_announced_is_an_os_error(
    authority: trustme.CA, trust: ssl.SSLContext
) -> None:
    async def cut(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.send_all(b"a part")
        await stream.transport_stream.aclose()

    async with secured(authority, cut) as address:
        with trio.fail_after(PATIENCE), await dial_tls(address, "127.0.0.1", trust) as wire:
            assert await wire.receive() == b"a part"
            with pytest.raises(OSError, match="cut off"):
                await wire.receive()


async def test_a_server_that_cannot_prove_its_name_is_an_os_error_and_leaves_nothing_open(
    authority: trustme.CA, trust: ssl.SSLContext
) -> None:
    async def never(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.do_handshake()

    async with secured(authority, never) as address:
        before = open_files()
        with trio.fail_after(PATIENCE), pytest.raises(OSError, match="not trusted: IP") as failed:
            await dial_tls(address, "127.0.0.2", trust)
        assert failed.value.strerror
        with pytest.raises(OSError, match="not trusted: unable to get"):
            await dial_tls(address, "127.0.0.1", ssl.create_default_context())
        await eventually(lambda: open_files() <= before)


async def test_a_server_without_tls_is_an_os_error(trust: ssl.SSLContext) -> None:
    for words in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(PATIENCE)
            address = TcpAddress(*listener.getsockname())

            def answer(listener: socket.socket = listener, words: bytes = words) -> None:
                theirs, _ = listener.accept()
                theirs.recv(65536)
                theirs.sendall(words)
                theirs.close()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, answer)
                with trio.fail_after(PATIENCE), pytest.raises(OSError, match="TLS"):
                    await dial_tls(address, "127.0.0.1", trust)


async def test_a_handshake_that_is_given_up_leaves_nothing_open(trust: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = open_files()
        with trio.move_on_after(0.02) as patience:
            await dial_tls(TcpAddress(*silent.getsockname()), "127.0.0.1", trust)
        assert patience.cancelled_caught
        assert open_files() == before

"""Raw sockets are dialled, written and read whole, and left closed when nobody waits any more."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.config.addresses import TcpAddress, UnixAddress
from llamasup.http.wire import Wire, dial


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

"""Whoever can come in does, and nobody waits in vain at a full house."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from llamasup.config.addresses import UnixAddress
from tests.harness import PATIENCE, Client, Llamasup, chat, eventually, request, running, tasks

Faking = Callable[..., Mapping[str, object]]


async def test_every_address_is_served(faking: Faking, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    addresses = {"server.listen": ["127.0.0.1:0", f"unix:{path}", "127.0.0.1:0"]}
    async with running({**faking(), **addresses}) as llamasup:
        for address in (llamasup.address, UnixAddress(str(path))):
            async with Client(address) as client:
                await client.send(request("POST", "/v1/chat/completions", chat(3)))
                assert (await client.reply()).text() == " 0 1 2"
    assert not path.exists()


# --- a full house ---


CHAT = "/v1/chat/completions"
SLOWLY = ("--fake-token-delay", "0.05")


class From(Client):
    """A client that comes from an address of its own."""

    def __init__(self, place: str, llamasup: Llamasup) -> None:
        super().__init__(llamasup.address)
        self._place, self._to = place, llamasup.address

    async def __aenter__(self) -> From:
        self._stream = await trio.open_tcp_stream(
            self._to.host, self._to.port, local_address=self._place
        )
        return self

    async def is_busy(self) -> None:
        """It has an answer under way that takes long."""
        await self.send(request("POST", CHAT, chat(2000)))
        await self.read_until(b" 0")

    async def is_served(self) -> bool:
        """Is it, or else told why not? Closed without a word, it was neither."""
        await self.send(request("GET", "/health"))
        reply = await self.reply()
        if reply.status != 200:
            assert (reply.status, reply.error["code"]) == (503, "too_many_connections")
            assert reply.headers["connection"] == "close"
            assert reply.complete
        return reply.status == 200

    async def is_closed(self) -> bool:
        """Without a word."""
        return await self.read_some() == b""


async def comes(llamasup: Llamasup, place: str = "127.0.0.1") -> bool:
    """Somebody new comes. Is it served?"""
    async with From(place, llamasup) as newcomer:
        return await newcomer.is_served()


async def test_a_client_that_comes_when_all_connections_are_busy_is_told_so(faking: Faking) -> None:
    settings = {"models.fake.parallel": 2, "server.max_connections": 2}
    async with (
        running({**faking(*SLOWLY), **settings}) as llamasup,
        From("127.0.0.1", llamasup) as first,
    ):
        await first.is_busy()
        async with From("127.0.0.2", llamasup) as second:
            await second.is_busy()
            assert [await comes(llamasup, "127.0.0.3") for _ in range(20)] == [False] * 20
        await eventually(lambda: comes(llamasup))


@pytest.fixture
def breathless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who rests may be sent away at once."""
    monkeypatch.setattr("llamasup.front.server.BREATH", 0.0)


@pytest.mark.usefixtures("breathless")
async def test_when_all_connections_are_taken_the_longest_idle_one_is_closed_for_a_new_one(
    faking: Faking,
) -> None:
    async with (
        running({**faking(*SLOWLY), "server.max_connections": 3}) as llamasup,
        From("127.0.0.1", llamasup) as idle,
        From("127.0.0.1", llamasup) as used,
        From("127.0.0.1", llamasup) as busy,
    ):
        assert await idle.is_served()
        await busy.is_busy()
        assert await used.is_served()
        for _ in range(3):
            assert await comes(llamasup)
            assert await used.is_served()
        assert await idle.is_closed()
        await busy.read_until(b" 1")


async def test_a_client_that_has_just_come_is_not_sent_away_before_it_can_ask(
    faking: Faking,
) -> None:
    """Its request is on its way, and a connection closed without a word cannot tell why."""
    async with (
        running({**faking(), "server.max_connections": 1}) as llamasup,
        From("127.0.0.1", llamasup) as first,
    ):
        await eventually(lambda: _is_full(llamasup))
        assert await first.is_served()


async def _is_full(llamasup: Llamasup) -> bool:
    return not await comes(llamasup, "127.0.0.2")


@pytest.mark.usefixtures("breathless")
async def test_no_address_takes_all_connections_and_one_that_hoards_them_loses_its_own(
    faking: Faking,
) -> None:
    settings = {"models.fake.parallel": 8, "server.max_connections": 8}
    async with running({**faking(*SLOWLY), **settings}) as llamasup, AsyncExitStack() as stack:

        async def enter(place: str) -> From:
            return await stack.enter_async_context(From(place, llamasup))

        greedy = [await enter("127.0.0.1") for _ in range(6)]
        for client in greedy:
            await client.is_busy()
        assert not await comes(llamasup, "127.0.0.1")
        modest = await enter("127.0.0.2")
        assert await modest.is_served()
        hoarded = [await enter("127.0.0.3") for _ in range(50)]
        assert [await client.is_closed() for client in hoarded[:-1]] == [True] * 49
        assert await modest.is_served()
        assert await hoarded[-1].is_served()
        for client in greedy:
            assert await client.read_until(b" 1")


async def test_a_connection_with_an_unread_request_is_not_closed_for_a_new_one(
    faking: Faking,
) -> None:
    """They come and ask at once, faster than anybody can read."""
    async with running({**faking(), "server.max_connections": 4}) as llamasup:
        for _ in range(10):
            clients = [socket.create_connection(tuple_of(llamasup)) for _ in range(4)]
            for client in clients:
                client.sendall(request("GET", "/health"))
            with trio.fail_after(PATIENCE):
                heads = [await trio.to_thread.run_sync(client.recv, 12) for client in clients]
            # The part of one address is three of four.
            assert sorted(heads)[:3] == [b"HTTP/1.1 200"] * 3
            assert heads.count(b"") == 0
            for client in clients:
                client.close()
            await eventually(lambda: not any("_attend" in task for task in tasks()))


def tuple_of(llamasup: Llamasup) -> tuple[str, int]:
    return llamasup.address.host, llamasup.address.port


# --- no descriptors ---


@contextmanager
def every_descriptor_taken() -> Iterator[list[int]]:
    """Nothing more can be opened until something is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 1, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield taken
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


async def asks(client: trio.socket.SocketType, llamasup: Llamasup) -> bytes:
    """What it is answered, to the end of the connection, or of what comes at once."""
    await client.connect(tuple_of(llamasup))
    await client.send(request("GET", "/health"))
    answer = b""
    with trio.fail_after(PATIENCE):
        while b"\r\n\r\n" not in answer and (data := await client.recv(65536)):
            answer += data
    return answer


async def test_without_a_descriptor_a_new_client_is_told_so(faking: Faking) -> None:
    async with running(faking(*SLOWLY)) as llamasup, From("127.0.0.1", llamasup) as busy:
        await busy.is_busy()
        newcomers = [trio.socket.socket() for _ in range(5)]
        with every_descriptor_taken() as taken:
            for newcomer in newcomers:
                answer = await asks(newcomer, llamasup)
                assert answer.startswith(b"HTTP/1.1 503"), answer
                newcomer.close()
                taken.append(os.open(os.devnull, os.O_RDONLY))
        assert await busy.read_until(b" 1")
        assert await comes(llamasup)


@pytest.mark.usefixtures("breathless")
async def test_without_a_descriptor_idle_connections_are_closed_for_new_ones(
    faking: Faking,
) -> None:
    async with running(faking()) as llamasup, AsyncExitStack() as stack:
        for _ in range(4):
            idle = await stack.enter_async_context(From("127.0.0.1", llamasup))
            assert await idle.is_served()
        newcomer = trio.socket.socket()
        with every_descriptor_taken():
            assert (await asks(newcomer, llamasup)).startswith(b"HTTP/1.1 200")
        newcomer.close()


async def test_newcomers_do_not_wait_for_one_another(
    faking: Faking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes while others have much to do is accepted with all the others, at once."""
    accept, moments = socket.socket.accept, list[int]()

    def accepted(listener: socket.socket) -> tuple[socket.socket, object]:
        connection = accept(listener)
        moments.append(ticks)
        return connection

    ticks = 0

    async def count() -> None:
        nonlocal ticks
        while True:
            await trio.lowlevel.checkpoint()
            ticks += 1

    async with running(faking()) as llamasup, trio.open_nursery() as nursery:
        monkeypatch.setattr(socket.socket, "accept", accepted)
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        clients = [socket.create_connection(tuple_of(llamasup)) for _ in range(60)]
        await eventually(lambda: len(moments) == 60)
        assert len(set(moments)) < 6  # on a busy machine, the kernel hands them over in pieces
        nursery.cancel_scope.cancel()
    for client in clients:
        client.close()


async def test_a_client_that_connects_and_leaves_at_once_does_no_harm(faking: Faking) -> None:
    async with running(faking()) as llamasup:
        for _ in range(100):
            client = llamasup.connect()
            async with client:
                client.leave_by_reset()
        with trio.fail_after(PATIENCE):
            assert (await llamasup.ask("GET", "/health")).status == 200


async def test_a_client_whose_socket_takes_no_options_any_more_does_no_harm(
    faking: Faking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset_already(sock: socket.socket, level: int, *_: object) -> None:
        if level == socket.IPPROTO_TCP:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    async with running(faking()) as llamasup:
        monkeypatch.setattr(socket.socket, "setsockopt", reset_already)
        assert (await llamasup.ask("GET", "/health")).status == 200


async def test_a_connection_that_is_gone_before_it_is_accepted_is_no_shortage(
    faking: Faking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, knocks = socket.socket.accept, []

    def gone_already(listener: socket.socket) -> tuple[socket.socket, object]:
        knocks.append(listener)
        if len(knocks) == 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return accept(listener)

    async with running(faking()) as llamasup:
        monkeypatch.setattr(socket.socket, "accept", gone_already)
        assert (await llamasup.ask("GET", "/health")).status == 200
    assert len(knocks) > 1
    assert "cannot accept" not in caplog.text

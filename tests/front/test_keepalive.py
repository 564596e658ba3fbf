"""Clients that wait are spoken to at regular intervals, and only while they wait."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.config.schema import Seconds
from llamasup.front.answer import Answer
from llamasup.front.keepalive import Keepalive, KeptAlive
from llamasup.http.connection import Connection
from llamasup.http.requests import Request
from llamasup.pool.child_lease import ChildLease

INTERVAL = 10


@define
class Lessor:
    """A lease that comes after so many seconds."""

    seconds: float
    left: bool = False
    outlooks: Iterator[str] = field(factory=lambda: (f"outlook {n}" for n in range(1000)))

    def outlook(self) -> str:
        return next(self.outlooks)

    async def __aenter__(self) -> Lessor:
        await trio.sleep(self.seconds)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.left = True


@contextmanager
def client() -> Iterator[tuple[Connection, socket.socket]]:
    """Our side of a client's connection, and its own."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield Connection(ours, Seconds(60)), theirs


def comforted(keepalive: Keepalive, lessor: Lessor, connection: Connection) -> KeptAlive:
    request = Request(b"POST", b"/v1/completions", [], False, True, b"the-id")
    return KeptAlive(keepalive, cast(ChildLease, lessor), connection, Answer(request, []))


def heard(theirs: socket.socket) -> list[str]:
    """The comments that have come since the last time."""
    try:
        data = theirs.recv(65536).decode()
    except BlockingIOError:
        return []
    return [line.removeprefix(": ") for line in data.splitlines() if line.startswith(": ")]


@asynccontextmanager
async def speaking() -> AsyncIterator[Keepalive]:
    keepalive = Keepalive(Seconds(INTERVAL))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        await wait_all_tasks_blocked()
        yield keepalive
        nursery.cancel_scope.cancel()


async def test_a_waiting_client_gets_a_comment_after_every_interval(
    autojump_clock: MockClock,
) -> None:
    async with speaking() as keepalive, trio.open_nursery() as nursery:
        with client() as (connection, theirs):

            async def wait() -> None:
                async with comforted(keepalive, Lessor(35), connection):
                    pass

            nursery.start_soon(wait)
            await trio.sleep(INTERVAL / 2)
            for number in range(3):
                assert heard(theirs) == []
                await trio.sleep(INTERVAL)
                assert heard(theirs) == [f"outlook {number}"]
            await trio.sleep(5 * INTERVAL)
            assert heard(theirs) == []


async def test_a_client_that_waits_only_briefly_hears_nothing(autojump_clock: MockClock) -> None:
    async with speaking() as keepalive:
        with client() as (connection, theirs):
            async with comforted(keepalive, Lessor(INTERVAL - 1), connection) as lease:
                await trio.sleep(5 * INTERVAL)
            assert cast(Lessor, lease).left
            assert heard(theirs) == []


async def test_clients_that_came_at_different_times_get_comments_at_their_own_times(
    autojump_clock: MockClock,
) -> None:
    heard_at: dict[int, list[float]] = {}

    async def wait(keepalive: Keepalive, number: int) -> None:
        await trio.sleep(number)
        began = trio.current_time()
        with client() as (connection, theirs):
            heard_at[number] = []

            async def listen() -> None:
                while True:
                    await trio.lowlevel.wait_readable(theirs)
                    heard(theirs)
                    heard_at[number].append(trio.current_time() - began)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                async with comforted(keepalive, Lessor(5 + 10 * number), connection):
                    nursery.cancel_scope.cancel()

    async with speaking() as keepalive, trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(wait, keepalive, number)
    for number, times in heard_at.items():
        expected = [INTERVAL * (turn + 1) for turn in range(number)]
        assert times == pytest.approx(expected, abs=0.1)


async def test_a_request_that_is_cancelled_while_it_waits_holds_nothing_and_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    async with speaking() as keepalive:
        with client() as (connection, theirs):
            lessor = Lessor(1000)
            with trio.move_on_after(1.5 * INTERVAL):
                async with comforted(keepalive, lessor, connection):
                    pytest.fail("it has not come yet")
            assert heard(theirs) == ["outlook 0"]
            await trio.sleep(5 * INTERVAL)
            assert heard(theirs) == []
            assert not lessor.left


async def test_a_client_that_has_left_does_not_disturb_the_others(
    autojump_clock: MockClock,
) -> None:
    async with speaking() as keepalive, trio.open_nursery() as nursery:
        with client() as (gone, its_end), client() as (connection, theirs):
            its_end.close()

            async def wait(on: Connection) -> None:
                async with comforted(keepalive, Lessor(1000), on):
                    pass

            nursery.start_soon(wait, gone)
            nursery.start_soon(wait, connection)
            await trio.sleep(3.5 * INTERVAL)
            assert heard(theirs) == ["outlook 0", "outlook 1", "outlook 2"]
            nursery.cancel_scope.cancel()


async def test_a_dismissed_keepalive_sees_its_clients_through_and_ends(
    autojump_clock: MockClock,
) -> None:
    keepalive = Keepalive(Seconds(INTERVAL))
    with client() as (connection, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keepalive.run)
            async with comforted(keepalive, Lessor(2.5 * INTERVAL), connection):
                keepalive.dismiss()
                assert len(heard(theirs)) == 2

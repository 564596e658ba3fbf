"""One lookout notices every client that leaves, and nobody else."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llamasup.http.disconnects import Disconnects
from tests.harness import PATIENCE


def connected() -> tuple[socket.socket, socket.socket]:
    """Our side of a TCP connection, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    return ours, client


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


LEAVINGS: dict[str, Callable[[socket.socket], None]] = {
    "fin": socket.socket.close,
    "reset": reset,
    "half-close": lambda client: client.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("unread", [b"", b"a pipelined request"])
@pytest.mark.parametrize("leaving", LEAVINGS)
async def test_a_client_that_leaves_cancels_what_is_done_for_it(
    leaving: str, unread: bytes
) -> None:
    disconnects = Disconnects()
    ours, client = connected()
    with ours, client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disconnects.watch)
            with trio.fail_after(PATIENCE), disconnects.cancelling(ours) as scope:
                client.sendall(unread)
                await wait_all_tasks_blocked()
                LEAVINGS[leaving](client)
                await trio.sleep_forever()
            assert scope.cancelled_caught
            nursery.cancel_scope.cancel()


async def test_clients_that_stay_are_left_alone_whatever_they_send() -> None:
    disconnects = Disconnects()
    stays, leaves = connected(), connected()
    with stays[0], stays[1], leaves[0], leaves[1]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disconnects.watch)
            with disconnects.cancelling(stays[0]) as staying:
                with trio.fail_after(PATIENCE), disconnects.cancelling(leaves[0]) as leaving:
                    stays[1].sendall(b"x" * 10_000)
                    leaves[1].close()
                    await trio.sleep_forever()
                assert leaving.cancelled_caught
                await wait_all_tasks_blocked(0.01)
                assert not staying.cancel_called
            nursery.cancel_scope.cancel()


async def test_a_descriptor_that_is_used_again_belongs_to_its_new_client() -> None:
    disconnects = Disconnects()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disconnects.watch)
        for _ in range(3):
            ours, client = connected()
            with ours, client, trio.fail_after(PATIENCE), disconnects.cancelling(ours) as scope:
                client.close()
                await trio.sleep_forever()
            assert scope.cancelled_caught
        nursery.cancel_scope.cancel()

"""What is known of each kind of server: how it is asked, and what its words and errors mean."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from llamasup.children import probe
from llamasup.children.manners import LLAMA_SERVER, Manners, OtherServer
from llamasup.config.addresses import TcpAddress
from llamasup.engine.failures import Heard, Kind
from llamasup.engine.loglines import LogReader
from llamasup.upstream import Verdict

LOG = b"llama_server: model loaded\ninitializing, n_slots = 4, n_ctx_slot = 1024\n"
OOM = "CUDA error: out of memory"


@asynccontextmanager
async def answering(status: int) -> AsyncIterator[TcpAddress]:
    """A server that answers everything with this status."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            if await stream.receive_some(4096):
                head = f"HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                await stream.send_all(head.encode())

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield TcpAddress("127.0.0.1", listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("manners", "status", "well"),
    [
        (LLAMA_SERVER, 200, True),
        (LLAMA_SERVER, 404, True),
        (LLAMA_SERVER, 503, False),
        (OtherServer("/health"), 204, True),
        (OtherServer("/health"), 307, True),
        (OtherServer("/health"), 404, False),
        (OtherServer("/health"), 503, False),
        (OtherServer(), 503, True),
    ],
)
async def test_a_server_is_well_by_its_own_page_or_if_it_has_none_by_its_port(
    manners: Manners, status: int, well: bool
) -> None:
    async with answering(status) as address:
        assert await manners.look(address) is well


@pytest.mark.parametrize("manners", [LLAMA_SERVER, OtherServer("/health"), OtherServer()])
async def test_what_does_not_listen_is_not_well(manners: Manners) -> None:
    async with answering(200) as address:
        pass
    with pytest.raises(probe.NoAnswer):
        await manners.look(address)


def test_the_words_of_another_server_mean_nothing() -> None:
    events = LogReader().feed(LOG)
    assert LLAMA_SERVER.understood(events) == events
    assert len(OtherServer().understood(events)) == 2


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (0, Kind.FINISHED, "finished by itself"),
        (1, Kind.UNKNOWN, f"exited with 1; its last words: {OOM}"),
        (127, Kind.ENGINE_UNUSABLE, f"exited with 127; its last words: {OOM}"),
        (-signal.SIGSEGV, Kind.CRASH, f"killed by SIGSEGV; its last words: {OOM}"),
    ],
)
def test_why_another_server_did_not_start_says_its_status(
    status: int, kind: Kind, words: str
) -> None:
    cause = OtherServer().why_not_started(status, ["loading", OOM])
    assert (cause.kind, cause.words) == (kind, words)


def test_the_same_words_of_a_llama_server_mean_that_memory_ran_out() -> None:
    assert LLAMA_SERVER.why_not_started(1, [OOM]).kind is Kind.OUT_OF_MEMORY


def test_last_words_at_a_death_may_be_a_clients_and_are_not_told() -> None:
    cause = OtherServer().why_dead(-6, [Heard(1.0, "GGML_ASSERT: a secret")], 1.0)
    assert (cause.kind, cause.words) == (Kind.CRASH, "killed by SIGABRT")


def test_an_error_of_another_server_is_its_own_affair() -> None:
    assert LLAMA_SERVER.verdict(500, "std::bad_alloc", 9) is Verdict.OUT_OF_MEMORY
    assert OtherServer().verdict(500, "std::bad_alloc", 9) is Verdict.ITS_OWN

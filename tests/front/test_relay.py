"""An answer reaches the client as it comes, in the framing it can read; a cut one looks cut."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import Factory, define
from trio.testing import wait_all_tasks_blocked

from llamasup.config.addresses import Address, UnixAddress
from llamasup.config.schema import Server
from llamasup.engine.failures import verdict_on_reply
from llamasup.errors import ChildLost, EngineFailed
from llamasup.front.answer import Answer
from llamasup.front.relay import RanOutOfMemory, ReplyCut, relay
from llamasup.http.connection import Connection
from llamasup.http.framing import LAST_CHUNK, Chunked, chunk
from llamasup.http.requests import Request
from llamasup.http.wire import Wire, dial
from llamasup.upstream import Upstream, Verdict
from tests.harness import PATIENCE, Journal, chat, eventually, request, running

Faking = Callable[..., Mapping[str, object]]
Part = Callable[[trio.SocketStream], Awaitable[None]]


@define
class Engine(Upstream):
    """An upstream that does what the test says."""

    address: Address
    well: bool = True
    ran_out: list[str] = Factory(list)

    def __str__(self) -> str:
        return "the engine"

    async def connect(self) -> Wire:
        return await dial(self.address)

    async def survived(self) -> bool:
        return self.well

    def judge(self, status: int, message: str, size: int) -> Verdict:
        return verdict_on_reply(status, message, size)

    def note_out_of_memory(self, words: str) -> bool:
        self.ran_out.append(words)
        return True


@asynccontextmanager
async def engine(folder: Path, play: Part) -> AsyncIterator[Engine]:
    """Every connection to it is given to `play`, and closed after that."""
    path = str(folder / "engine.sock")
    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(path)
        listener.listen()
        serving = [trio.SocketListener(listener)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, play, serving)
            yield Engine(UnixAddress(path))
            nursery.cancel_scope.cancel()


def saying(*parts: bytes) -> Part:
    async def play(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            for part in parts:
                await stream.send_all(part)
                await wait_all_tasks_blocked()

    return play


@asynccontextmanager
async def client() -> AsyncIterator[tuple[Connection, trio.SocketStream]]:
    """Our side of a client's connection, and its own."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as stream:
        yield Connection(ours, Server().send_timeout), stream
        ours.close()


def asked(method: bytes = b"GET", *, http_1_0: bool = False, body: bytes = b"") -> Request:
    return Request(method, b"/", [], not http_1_0, http_1_0, b"the-id", body)


async def outcome(
    folder: Path, play: Part, to: Request, *, well: bool = True
) -> tuple[bytes, ReplyCut | ChildLost | EngineFailed | None]:
    """What the client gets, and what went wrong."""
    async with engine(folder, play) as upstream, client() as (connection, theirs):
        upstream.well = well
        failure = None
        try:
            with trio.fail_after(PATIENCE):
                await relay(connection, to, upstream, b"/", Answer(to, []))
        except (ReplyCut, ChildLost, EngineFailed) as error:
            failure = error
        connection.close()
        return await rest(theirs), failure


async def relayed(folder: Path, play: Part, to: Request) -> bytes:
    """What the client gets, when nothing goes wrong."""
    reply, failure = await outcome(folder, play, to)
    assert failure is None
    return reply


async def rest(stream: trio.SocketStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


def content(reply: bytes) -> bytes:
    return reply.partition(b"\r\n\r\n")[2]


def unchunked(body: bytes) -> bytes:
    payload = bytearray()
    framing = Chunked(payload)
    assert framing.feed(body) == len(body)
    assert framing.done
    return bytes(payload)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
COUNTED = OK + b"Content-Length: 10\r\n\r\n0123456789"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n012\r\n7\r\n3456789\r\n0\r\n\r\n"
CLOSED = OK + b"Connection: close\r\n\r\n0123456789"


# --- framing ---


async def test_a_counted_body_passes_with_its_length(tmp_path: Path) -> None:
    reply = await relayed(tmp_path, saying(COUNTED), asked())
    assert b"\r\nContent-Length: 10\r\n" in reply
    assert content(reply) == b"0123456789"


async def test_what_a_chunked_body_holds_passes_in_chunks(tmp_path: Path) -> None:
    reply = await relayed(tmp_path, saying(CHUNKED), asked())
    assert b"\r\nTransfer-Encoding: chunked\r\n" in reply
    assert content(reply) == b"a\r\n0123456789\r\n0\r\n\r\n"


@pytest.mark.parametrize("http_1_0", [False, True])
async def test_trailers_do_not_reach_the_client(tmp_path: Path, http_1_0: bool) -> None:
    trailed = CHUNKED.removesuffix(b"\r\n") + b"X-Sum: 1\r\n\r\n"
    reply = await relayed(tmp_path, saying(trailed), asked(http_1_0=http_1_0))
    assert b"X-Sum" not in reply


async def test_a_body_of_unknown_length_is_given_chunks(tmp_path: Path) -> None:
    reply = await relayed(tmp_path, saying(CLOSED, b"abc"), asked())
    assert b"\r\nTransfer-Encoding: chunked\r\n" in reply
    assert content(reply) == b"a\r\n0123456789\r\n3\r\nabc\r\n0\r\n\r\n"


async def test_http_1_0_gets_a_body_of_unknown_length_raw(tmp_path: Path) -> None:
    reply = await relayed(tmp_path, saying(CLOSED), asked(http_1_0=True))
    assert b"chunked" not in reply
    assert b"\r\nConnection: close\r\n" in reply
    assert content(reply) == b"0123456789"


async def test_http_1_0_gets_a_chunked_body_without_its_chunks(tmp_path: Path) -> None:
    parts = [CHUNKED[at : at + 7] for at in range(0, len(CHUNKED), 7)]
    reply = await relayed(tmp_path, saying(*parts), asked(http_1_0=True))
    assert b"chunked" not in reply
    assert content(reply) == b"0123456789"


async def test_the_answer_to_head_has_its_headers_and_no_body(tmp_path: Path) -> None:
    head = COUNTED.removesuffix(b"0123456789")
    reply = await relayed(tmp_path, saying(head), asked(b"HEAD"))
    assert b"\r\nContent-Length: 10\r\n" in reply
    assert content(reply) == b""


async def test_bytes_after_the_end_of_an_answer_are_not_passed_on(tmp_path: Path) -> None:
    reply = await relayed(tmp_path, saying(COUNTED + b"HTTP/1.1 200 smuggled"), asked())
    assert content(reply) == b"0123456789"


async def test_interim_replies_are_passed_over(tmp_path: Path) -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    reply = await relayed(tmp_path, saying(interim, interim + COUNTED), asked())
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert content(reply) == b"0123456789"


# --- as the bytes come ---


@pytest.mark.parametrize("http_1_0", [False, True])
async def test_each_event_reaches_the_client_before_the_next_is_made(
    tmp_path: Path, http_1_0: bool
) -> None:
    event = b"data: %d\n\n"
    read, proceed = trio.open_memory_channel[int](0)

    async def play(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            await stream.send_all(b"9\r\n" + event % number + b"\r\n")
            assert await proceed.receive() == number
        await stream.send_all(b"0\r\n\r\n")

    async with (
        engine(tmp_path, play) as upstream,
        client() as (connection, theirs),
        trio.open_nursery() as nursery,
    ):
        to = asked(http_1_0=http_1_0)
        nursery.start_soon(relay, connection, to, upstream, b"/", Answer(to, []))
        got = b""
        with trio.fail_after(PATIENCE):
            for number in range(5):
                while event % number not in got:
                    got += bytes(await theirs.receive_some())
                await read.send(number)


async def test_a_client_that_stops_reading_stops_the_engine(tmp_path: Path) -> None:
    piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    sent = 0

    async def play(stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.receive_some()
        await stream.send_all(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(1000):
            await stream.send_all(piece)
            sent += len(piece)
        await stream.send_all(b"0\r\n\r\n")

    async with engine(tmp_path, play) as upstream, client() as (connection, theirs):

        async def relay_to_the_end() -> None:
            await relay(connection, asked(), upstream, b"/", Answer(asked(), []))
            connection.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay_to_the_end)
            await wait_all_tasks_blocked(0.05)
            assert sent < 4 << 20
            with trio.fail_after(PATIENCE):
                reply = await rest(theirs)
    assert unchunked(content(reply)) == bytes(0x10000) * 1000


async def test_a_cancelled_request_closes_the_engines_connection_at_once(tmp_path: Path) -> None:
    closed = trio.Event()

    async def play(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        assert await stream.receive_some() == b""
        closed.set()

    async with (
        engine(tmp_path, play) as upstream,
        client() as (connection, theirs),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(relay, connection, asked(), upstream, b"/", Answer(asked(), []))
        await theirs.receive_some()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
            await closed.wait()


# --- what goes wrong ---


@pytest.mark.parametrize("answer", [COUNTED, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("http_1_0", [False, True], ids=["1.1", "1.0"])
async def test_no_cut_of_an_answer_is_taken_for_its_end(
    tmp_path: Path, answer: bytes, http_1_0: bool
) -> None:
    end_of_head = answer.index(b"\r\n\r\n") + 4
    for cut in range(end_of_head, len(answer)):
        (folder := tmp_path / str(cut)).mkdir()
        _, failure = await outcome(folder, saying(answer[:cut]), asked(http_1_0=http_1_0))
        assert isinstance(failure, ReplyCut)


async def test_an_engine_that_dies_within_a_body_of_unknown_length_cut_it(tmp_path: Path) -> None:
    reply, failure = await outcome(tmp_path, saying(CLOSED), asked(), well=False)
    assert isinstance(failure, ReplyCut)
    assert content(reply) == b"a\r\n0123456789\r\n"


@pytest.mark.parametrize("answer", [b"", OK])
async def test_a_child_that_gives_no_answer_is_lost_and_the_client_saw_nothing(
    tmp_path: Path, answer: bytes
) -> None:
    reply, failure = await outcome(tmp_path, saying(answer), asked())
    assert isinstance(failure, ChildLost)
    assert reply == b""


async def test_a_child_that_cannot_be_reached_is_lost(tmp_path: Path) -> None:
    async with client() as (connection, _):
        nobody = Engine(UnixAddress(str(tmp_path / "none")))
        with pytest.raises(ChildLost, match="cannot be reached"):
            await relay(connection, asked(), nobody, b"/", Answer(asked(), []))


MALFORMED = {
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "a head without end": b"x" * 100_000,
    "a header without a colon": OK + b"no colon\r\n\r\n",
    "a bare newline": OK + b"X: a\nSet-Cookie: b\r\n\r\n",
    "a bare carriage return": OK + b"X: a\rSet-Cookie: b\r\n\r\n",
    "a NUL": OK + b"X: \0\r\n\r\n",
    "an escape": OK + b"X: \x1b[2J\r\n\r\n",
    "a space in a name": OK + b"X Y: 1\r\n\r\n",
    "a space behind a name": OK + b"Content-Length : 5\r\n\r\n12345",
    "a folded line": OK + b"X: 1\r\n Content-Length: 5\r\n\r\n12345",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
    "a length and chunks": OK + b"Content-Length: 5\r\n" + CHUNKED[len(OK) :],
    "another coding": OK + b"Transfer-Encoding: gzip\r\n\r\n12345",
    "chunks twice": OK + b"Transfer-Encoding: chunked\r\n" + CHUNKED[len(OK) :],
    "chunks in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a length of 5,000 digits": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "status 600": COUNTED.replace(b"200", b"600"),
    "status 099": COUNTED.replace(b"200", b"099"),
    "101 headers": OK + b"X: 1\r\n" * 101 + b"\r\n",
    "100 Continue without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "a chunk of no size": CHUNKED.replace(b"\r\n7\r\n", b"\r\nseven\r\n"),
    "a bad answer of a chunk of no size": CHUNKED.replace(b"200", b"500").replace(
        b"\n3\r", b"\nx\r"
    ),
}


@pytest.mark.parametrize("fault", MALFORMED)
async def test_an_answer_that_two_could_read_differently_is_an_error_and_not_shown(
    tmp_path: Path, fault: str
) -> None:
    reply, failure = await outcome(tmp_path, saying(MALFORMED[fault]), asked())
    assert isinstance(failure, EngineFailed)
    assert reply == b""


async def test_a_status_that_has_no_body_is_passed_on_without_a_length(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n12345"
    reply = await relayed(tmp_path, saying(answer), asked())
    assert b"Content-Length" not in reply
    assert content(reply) == b""


async def test_an_engine_that_refuses_a_body_unread_is_heard(tmp_path: Path) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(100)
            await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    reply = await relayed(tmp_path, refuse, asked(b"POST", body=bytes(10 << 20)))
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert content(reply) == b"no"


# --- memory runs out ---

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DELTA = b'data: {"choices":[{"delta":{"content":"error"}}],"model":"cuda-coder"}\n\n'
ERROR = b'{"error":{"code":500,"message":"CUDA error: out of memory","type":"server_error"}}'


async def ran_out(folder: Path, play: Part) -> list[str]:
    """What an engine said of that in a stream, all of which the client got."""
    async with engine(folder, play) as upstream, client() as (connection, theirs):
        with trio.fail_after(PATIENCE):
            await relay(connection, asked(), upstream, b"/", Answer(asked(), []))
        connection.close()
        assert (await rest(theirs)).endswith(LAST_CHUNK)
        return upstream.ran_out


async def test_a_stream_that_ends_in_an_error_tells_that_memory_ran_out(tmp_path: Path) -> None:
    stream = STREAM + chunk(DELTA) + chunk(b"data: " + ERROR + b"\n\n") + LAST_CHUNK
    assert await ran_out(tmp_path, saying(stream)) == ["CUDA error: out of memory"]


async def test_an_error_that_comes_in_pieces_is_told_once(tmp_path: Path) -> None:
    stream = STREAM + chunk(DELTA) + chunk(b"data: " + ERROR + b"\n\n") + LAST_CHUNK
    pieces = [stream[at : at + 23] for at in range(0, len(stream), 23)]
    assert await ran_out(tmp_path, saying(*pieces)) == ["CUDA error: out of memory"]


async def test_a_model_that_speaks_of_errors_and_memory_has_enough_of_it(tmp_path: Path) -> None:
    full = b'data: {"error":{"message":"Context size has been exceeded."}}\n\n'
    stream = STREAM + chunk(DELTA) * 3 + chunk(DELTA + DELTA) + chunk(full) + LAST_CHUNK
    assert await ran_out(tmp_path, saying(stream)) == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_bad_answer_that_memory_ran_out_is_kept_from_the_client(
    tmp_path: Path, chunked: bool
) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(ERROR) + ERROR
    chunks = chunk(ERROR[:30]) + chunk(ERROR[30:]) + LAST_CHUNK
    body = b"Transfer-Encoding: chunked\r\n\r\n" + chunks if chunked else length
    play = saying(b"HTTP/1.1 500 Internal Server Error\r\n" + body)
    reply, failure = await outcome(tmp_path, play, asked())
    assert isinstance(failure, RanOutOfMemory)
    assert str(failure) == "CUDA error: out of memory"
    assert reply == b""


async def test_a_bad_answer_that_only_quotes_such_words_is_the_clients(tmp_path: Path) -> None:
    error = b'{"error":{"message":"Failed to parse input at pos 12: cudaMalloc"},"model":"cuda"}'
    head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(error)
    assert content(await relayed(tmp_path, saying(head + error), asked())) == error


# --- until the first word ---

PING = b":\n\n"
PROGRESS = b'data: {"choices":[{"delta":{"role":"assistant"}}],"prompt_progress":{"total":9}}\n\n'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":null},"finish_reason":null}]}\n\n'
RAN_OUT = b"data: " + ERROR + b"\n\n"

FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "chunks": lambda events: STREAM + chunk(events) + LAST_CHUNK,
    "a chunk for each seven bytes": lambda events: (
        STREAM
        + b"".join(chunk(events[at : at + 7]) for at in range(0, len(events), 7))
        + LAST_CHUNK
    ),
    "a length": lambda events: (
        STREAM.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(events)) + events
    ),
    "until it closes": lambda events: (
        STREAM.replace(b"Transfer-Encoding: chunked\r\n", b"") + events
    ),
}


@pytest.mark.parametrize("http_1_0", [False, True], ids=["1.1", "1.0"])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_memory_that_runs_out_before_the_first_word_is_kept_from_the_client(
    tmp_path: Path, framing: str, http_1_0: bool
) -> None:
    for number, before in enumerate((b"", ROLE)):
        (folder := tmp_path / str(number)).mkdir()
        play = saying(FRAMINGS[framing](before + RAN_OUT))
        reply, failure = await outcome(folder, play, asked(http_1_0=http_1_0))
        assert isinstance(failure, RanOutOfMemory)
        assert reply == b""


@pytest.mark.parametrize("http_1_0", [False, True], ids=["1.1", "1.0"])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_memory_that_runs_out_after_the_first_word_is_told(
    tmp_path: Path, framing: str, http_1_0: bool
) -> None:
    to = asked(http_1_0=http_1_0)
    play = saying(FRAMINGS[framing](ROLE + DELTA + RAN_OUT))
    async with engine(tmp_path, play) as upstream, client() as (connection, theirs):
        with trio.fail_after(PATIENCE):
            await relay(connection, to, upstream, b"/", Answer(to, []))
        connection.close()
        body = content(await rest(theirs))
    assert (body if http_1_0 else unchunked(body)) == ROLE + DELTA + RAN_OUT
    assert upstream.ran_out == ["CUDA error: out of memory"]


@pytest.mark.parametrize("http_1_0", [False, True], ids=["1.1", "1.0"])
@pytest.mark.parametrize("end", [b"", chunk(RAN_OUT) + LAST_CHUNK], ids=["dies", "ran out"])
@pytest.mark.parametrize("comfort", [PING, PROGRESS, PROGRESS + PING])
async def test_what_only_passes_the_time_reaches_the_client_and_another_engine_goes_on(
    tmp_path: Path, comfort: bytes, end: bytes, http_1_0: bool
) -> None:
    to = asked(http_1_0=http_1_0)
    answer = Answer(to, [])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    comforted = trio.Event()

    async def play(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(STREAM + chunk(comfort))
            await comforted.wait()
            await stream.send_all(chunk(ROLE) + end)

    async with client() as (connection, theirs):
        got = b""

        async def see_the_comfort() -> None:
            nonlocal got
            while comfort not in got:
                got += bytes(await theirs.receive_some())
            comforted.set()

        with trio.fail_after(PATIENCE):
            async with engine(tmp_path / "a", play) as first, trio.open_nursery() as nursery:
                nursery.start_soon(see_the_comfort)
                with pytest.raises(ChildLost):
                    await relay(connection, to, first, b"/", answer)
            whole = STREAM + chunk(PING + ROLE) + chunk(DELTA) + LAST_CHUNK
            async with engine(tmp_path / "b", saying(whole)) as second:
                await relay(connection, to, second, b"/", answer)
        connection.close()
        reply = got + await rest(theirs)
    assert reply.count(b"HTTP/1.1 200") == 1
    body = content(reply) if http_1_0 else unchunked(content(reply))
    assert body == comfort + PING + ROLE + DELTA


async def test_what_passes_the_time_follows_what_its_client_had_not_taken_yet(
    tmp_path: Path,
) -> None:
    to = asked()
    answer = Answer(to, [])
    comment = b": " + b"x" * (4 << 20) + b"\n\n"

    async def play(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(STREAM + chunk(PING))
            await wait_all_tasks_blocked()
            await stream.send_all(chunk(DELTA) + LAST_CHUNK)

    with trio.fail_after(PATIENCE):
        async with engine(tmp_path, play) as upstream, client() as (connection, theirs):
            connection.send_in_passing(answer.comment("x" * (4 << 20)))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay, connection, to, upstream, b"/", answer)
                await wait_all_tasks_blocked(0.05)
                got = await theirs.receive_some(8 << 20)
                while not got.endswith(LAST_CHUNK):
                    got += await theirs.receive_some(8 << 20)
    assert unchunked(content(bytes(got))) == comment + PING + DELTA


async def test_an_error_of_another_kind_is_the_clients_and_so_is_what_came_before(
    tmp_path: Path,
) -> None:
    full = b'data: {"error":{"message":"Context size has been exceeded."}}\n\n'
    reply = await relayed(tmp_path, saying(STREAM + chunk(PING + full) + LAST_CHUNK), asked())
    assert unchunked(content(reply)) == PING + full


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_stream_of_other_line_ends_and_without_a_last_edge_passes_whole(
    tmp_path: Path, framing: str
) -> None:
    for number, stream in enumerate(
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", b"data: 1\r\rdata: 2\r\r", b"data: 1\n\ndata: 2")
    ):
        (folder := tmp_path / str(number)).mkdir()
        reply = await relayed(folder, saying(FRAMINGS[framing](stream)), asked())
        assert unchunked(content(reply)) == stream


async def test_a_chunk_without_end_is_neither_held_nor_copied_again_and_again(
    tmp_path: Path,
) -> None:
    size = 200 << 20

    async def play(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(STREAM + b"%x\r\ndata: " % (size + 100))
        piece = bytes(1 << 20)
        for _ in range(200):
            await stream.send_all(piece)

    async with engine(tmp_path, play) as upstream, client() as (connection, theirs):
        passed = 0

        async def read() -> None:
            nonlocal passed
            async for data in theirs:
                passed += len(data)

        before = time.process_time()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                with pytest.raises(ReplyCut):
                    await relay(connection, asked(), upstream, b"/", Answer(asked(), []))
                connection.close()
        assert time.process_time() - before < 10
    assert passed > size - (1 << 10)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_that_the_engine_refuses_is_told_so_by_name(
    tmp_path: Path, chunked: bool
) -> None:
    error = b'{"error":{"code":400,"message":"no array","type":"invalid_request_error"}}'
    length = b"Content-Length: %d\r\n\r\n" % len(error) + error
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + chunk(error) + LAST_CHUNK
    play = saying(b"HTTP/1.1 400 Bad Request\r\n" + (chunks if chunked else length))
    to = asked(b"POST")
    to.target = b"/v1/chat/completions?x"
    reply = await relayed(tmp_path, play, to)
    body = content(reply)
    assert b"\r\nContent-Length: %d\r\n" % len(body) in reply
    assert b"chunked" not in reply
    assert json.loads(body)["error"]["code"] == "invalid_parameter"


# --- through a running llamasup: the engine's process breaks off ---

CUTS = [
    (answer, death)
    for answer in ("length", "chunked", "close", "stream")
    for death in ("kill", "reset", "close")
    # A living engine that ends an answer by closing has ended it: nobody can tell.
    if (answer, death) != ("close", "close")
]


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize(("answer", "death"), CUTS)
async def test_an_answer_that_breaks_off_never_looks_whole(
    faking: Faking, answer: str, death: str, version: bytes
) -> None:
    framing = "chunked" if answer == "stream" else answer
    dies_at = "1000" if answer == "stream" else "200"  # before its first word it is sent again
    script = ["--fake-die-at-byte", dies_at, "--fake-death", death, "--fake-framing", framing]
    asking = request("POST", "/v1/chat/completions", chat(100, stream=answer == "stream"))
    async with running(faking(*script)) as llamasup, llamasup.connect() as client:
        await client.send(asking.replace(b"HTTP/1.1", version, 1))
        reply = await client.reply()
    if death == "reset" and reply.status == 502:
        return  # the reset overtook the answer: the client was told so
    assert reply.status == 200
    if answer == "stream":
        assert reply.complete
        assert "[DONE]" not in reply.events()
        assert json.loads(reply.events()[-1])["error"]["code"] == "engine_lost"
    else:
        assert 0 < len(reply.body) <= 200
        assert not reply.complete


@pytest.mark.parametrize("death", ["kill", "reset", "close"])
async def test_an_engine_lost_before_its_answer_is_an_error_and_the_connection_lives(
    faking: Faking, journal: Journal, death: str
) -> None:
    script = ["--fake-die-at-byte", "-1", "--fake-death", death]
    async with running(faking(*script)) as llamasup, llamasup.connect() as client:
        await client.send(request("POST", "/v1/chat/completions", chat(5)))
        reply = await client.reply()
        # Two kills from outside prove nothing against it.
        assert reply.status == 502
        assert reply.error["code"] == "engine_lost"
        await eventually(lambda: journal.entries("died"))
        await client.send(request("GET", "/health"))
        assert (await client.reply()).status == 200


async def test_tokens_are_read_while_the_engine_is_still_making_them(
    faking: Faking, journal: Journal
) -> None:
    def streams_answered() -> list[object]:
        # What llamasup itself asks an engine (/health, /props) has short answers.
        return [entry for entry in journal.entries("answered") if entry["sent"] > 500]

    async with running(faking("--fake-token-delay", "0.1")) as llamasup:
        async with llamasup.connect() as client:
            await client.send(request("POST", "/v1/chat/completions", chat(5)))
            for number in range(5):
                assert await client.read_until(b'"content":" %d"' % number)
                assert not streams_answered()
            assert await client.read_until(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        await eventually(streams_answered)

"""Requests on one connection are read with patience and limits, and answered one after another."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup import events
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Bytes, Config, Seconds, Server
from llamasup.errors import RouteNotFound
from llamasup.front.bodies import Bodies
from llamasup.front.conversation import Conversation
from llamasup.front.desk import Desk
from llamasup.front.guests import Guests
from llamasup.front.server import end_idle
from llamasup.http.connection import Connection
from tests.harness import (
    Client,
    Journal,
    Reply,
    chat,
    eventually,
    request,
    running,
    tasks,
)

Faking = Callable[..., Mapping[str, object]]
NO_BODIES = Bodies(Bytes(4 << 20), Path())

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def ends(client: Client) -> bool:
    """The connection ends cleanly, without another byte."""
    return not client.unread and await client.read_some() == b""


async def drained(client: Client) -> None:
    """Whatever still comes is read; a reset raises trio.BrokenResourceError."""
    while await client.read_some():
        pass


def echoed(reply: Reply) -> dict[str, str]:
    """The headers that reached the engine."""
    return {name.lower(): value for name, value in reply.json()["headers"]}


async def tokenized(client: Client, text: str) -> None:
    """One whole exchange works."""
    await client.send(request("POST", "/tokenize", {"content": text}))
    assert text in (await client.reply()).json()["body"]


# --- one after another ---


async def test_a_connection_serves_one_request_after_another(faking: Faking) -> None:
    async with running(faking("--fake-echo")) as llamasup, llamasup.connect() as client:
        for number in range(5):
            await tokenized(client, f"number {number}")


async def test_pipelined_requests_are_answered_in_order(faking: Faking) -> None:
    async with running(faking("--fake-echo")) as llamasup, llamasup.connect() as client:
        await client.send(
            b"".join(
                request("POST", f"/tokenize?{number}", {"content": "x" * number})
                + request("GET", f"/nope/{number}")
                for number in range(10)
            )
        )
        for number in range(10):
            assert (await client.reply()).json()["target"] == f"/tokenize?{number}"
            assert f"/nope/{number}" in (await client.reply()).error["message"]


async def test_a_request_that_comes_in_single_bytes_is_read(faking: Faking) -> None:
    async with running(faking("--fake-echo")) as llamasup, llamasup.connect() as client:
        for byte in request("POST", "/tokenize", {"content": "slow"}):
            await client.send(bytes([byte]))
            await trio.lowlevel.checkpoint()
        assert "slow" in (await client.reply()).json()["body"]


async def test_to_wait_for_room_takes_none_of_a_clients_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamasup.front.rooms._PATIENCE", 0.5)
    bodies = Bodies(Bytes(10_000), tmp_path)
    bodies.memory.take_now("somebody else", 5000)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, trio.socket.from_stdlib_socket(theirs) as client:
        settings = Server(head_timeout=Seconds(0.1))
        desk = Desk(InEffect(Config(server=settings)), None, None, None, bodies, events.Journal())  # type: ignore[arg-type]
        connection = Connection(ours, settings.send_timeout)
        whole = request("POST", "/tokenize", b"x" * 9000)
        await client.send(whole[:10])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Conversation(connection, desk).run)
            await wait_all_tasks_blocked()
            await client.send(whole[10:])
            assert (await client.recv(1000)).startswith(b"HTTP/1.1 503 ")
            client.close()


async def test_to_wait_for_room_takes_none_of_the_time_for_a_head(tmp_path: Path) -> None:
    bodies = Bodies(Bytes(100_000), tmp_path)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, trio.socket.from_stdlib_socket(theirs) as client:
        settings = Server(head_timeout=Seconds(0.3))
        desk = Desk(InEffect(Config(server=settings)), None, None, None, bodies, events.Journal())  # type: ignore[arg-type]
        connection = Connection(ours, settings.send_timeout)
        long = request("GET", "/nothing", headers={"X": "x" * 30_000})
        assert bodies.memory.take_now("unix", 50_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Conversation(connection, desk).run)
            await client.send(long[:20_000])
            await trio.sleep(0.6)
            bodies.memory.give_back("unix", 50_000)
            await client.send(long[20_000:])
            assert (await client.recv(1000)).startswith(b"HTTP/1.1 404 ")
            nursery.cancel_scope.cancel()
    assert bodies.memory.taken == 0


async def test_pipelined_requests_leave_all_other_clients_their_turns() -> None:
    turns = 0
    turns_at_request = []

    class Watching:
        def route(self, *_: object) -> None:
            turns_at_request.append(turns)
            raise RouteNotFound("nothing here")

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        desk = Desk(InEffect(Config()), None, None, None, NO_BODIES, events.Journal())  # type: ignore[arg-type]
        desk.router = Watching()  # type: ignore[assignment]
        connection = Connection(ours, Server().send_timeout)
        connection.inbox += request("GET", "/") * 100
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Conversation(connection, desk).run)
            while len(turns_at_request) < 100:
                turns += 1
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert turns_at_request[-1] - turns_at_request[0] >= 98


async def test_an_error_keeps_the_connection_where_the_request_was_whole(faking: Faking) -> None:
    two = {**faking(name="one"), **faking("--fake-echo", name="two")}
    wrong = [
        (request("GET", "/nope"), 404, "not_found"),
        (request("GET", "/tokenize"), 405, "method_not_allowed"),
        (request("POST", "/tokenize", {"model": "none"}), 404, "model_not_found"),
        (request("POST", "/tokenize", {}), 400, "invalid_parameter"),
        (request("POST", "/tokenize", b"{"), 400, "invalid_parameter"),
        (request("POST", "/tokenize", b"[" * 100_000), 400, "invalid_parameter"),
        (request("GET", "*"), 400, "invalid_parameter"),
    ]
    async with running(two) as llamasup, llamasup.connect() as client:
        for asked, status, code in wrong:
            await client.send(asked)
            reply = await client.reply()
            assert (reply.status, reply.error["code"]) == (status, code)
            assert reply.headers["content-type"] == "application/json"
            assert "content-length" in reply.headers
            assert "connection" not in reply.headers
        await client.send(request("POST", "/tokenize", {"model": "two"}))
        assert (await client.reply()).status == 200


async def test_connection_close_is_honoured(faking: Faking) -> None:
    async with running(faking()) as llamasup, llamasup.connect() as client:
        await client.send(request("GET", "/health", headers={"Connection": "close"}))
        assert (await client.reply()).headers["connection"] == "close"
        assert await ends(client)


# --- HEAD, bodies, 100-continue ---


async def test_the_answer_to_head_has_the_length_and_no_body(faking: Faking) -> None:
    async with running(faking()) as llamasup, llamasup.connect() as client:
        for path, status in (("/health", 200), ("/nope", 404)):
            await client.send(request("HEAD", path))
            reply = await client.reply(to_head=True)
            assert reply.status == status
            assert int(reply.headers["content-length"]) > 0
        await client.send(request("GET", "/health"))
        assert (await client.reply()).json()["status"] == "ok"


async def test_head_is_answered_by_a_real_engine_too(counting: dict[str, object]) -> None:
    async with running(counting) as llamasup, llamasup.connect() as client:
        assert (await llamasup.ask("POST", "/tokenize", {"content": "x"})).status == 200
        await client.send(request("HEAD", "/slots"))
        assert (await client.reply(to_head=True)).status == 200
        await client.send(request("GET", "/slots"))
        assert len((await client.reply()).json()) == 2


async def test_a_chunked_body_reaches_the_engine_with_a_length(faking: Faking) -> None:
    async with running(faking("--fake-echo")) as llamasup, llamasup.connect() as client:
        await client.send(
            request("POST", "/tokenize", headers={"Transfer-Encoding": "chunked"})
            + b'1\r\n{\r\nc\r\n"content":"x\r\n2\r\n"}\r\n0\r\nX-Trailer: 1\r\n\r\n'
        )
        reply = await client.reply()
        assert reply.json()["body"] == '{"content":"x"}'
        assert echoed(reply)["content-length"] == "15"
        assert "transfer-encoding" not in echoed(reply)
        await tokenized(client, "and the next")


@pytest.mark.parametrize("framing", ["Content-Length: 15", "Transfer-Encoding: chunked"])
async def test_a_body_is_withheld_until_100_continue(faking: Faking, framing: str) -> None:
    name, _, value = framing.partition(": ")
    body = b'{"content":"x"}' if name == "Content-Length" else b'f\r\n{"content":"x"}\r\n0\r\n\r\n'
    async with running(faking("--fake-echo")) as llamasup, llamasup.connect() as client:
        await client.send(
            request("POST", "/tokenize", headers={name: value, "Expect": "100-continue"})
        )
        assert await client.read_until(b"\r\n\r\n") == CONTINUE
        await client.send(body)
        reply = await client.reply()
        assert reply.json()["body"] == '{"content":"x"}'
        assert "expect" not in echoed(reply)


async def test_another_expectation_fails_with_417(faking: Faking) -> None:
    async with running(faking()) as llamasup, llamasup.connect() as client:
        await client.send(request("POST", "/tokenize", {}, {"Expect": "a-miracle"}))
        reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (417, "expectation_failed")
        assert await ends(client)


async def test_a_client_that_waits_for_100_continue_learns_that_the_body_is_too_large(
    faking: Faking,
) -> None:
    headers = {"Content-Length": "1001", "Expect": "100-continue"}
    async with running({**faking(), "server.max_body": 1000}) as llamasup:
        assert (await llamasup.ask("POST", "/tokenize", headers=headers)).status == 413


# --- limits ---

LONG_BODY = b'{"content":"' + b"x" * (8 << 20) + b'"}'
TOO_LARGE = {
    "a long header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (8 << 20), 431),
    "a long request line": (b"GET /" + b"x" * (8 << 20), 431),
    "a counted body": (request("POST", "/tokenize", LONG_BODY), 413),
    "a chunked body": (
        request("POST", "/tokenize", headers={"Transfer-Encoding": "chunked"})
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(LONG_BODY), LONG_BODY),
        413,
    ),
}


@pytest.mark.parametrize("excess", TOO_LARGE)
async def test_a_client_over_a_limit_can_read_why_though_it_is_still_sending(
    faking: Faking, excess: str
) -> None:
    data, status = TOO_LARGE[excess]
    limits = {"server.max_head": 20_000, "server.max_body": 500_000}
    async with running({**faking(), **limits}) as llamasup, llamasup.connect() as client:
        await client.send(data)
        reply = await client.reply()
        assert reply.status == status
        assert reply.error["message"].endswith(
            ("max_body): send less", "20000 bytes: send fewer headers")
        )
        assert reply.headers["connection"] == "close"
        assert await ends(client)


async def test_a_body_may_be_as_large_as_the_limit(faking: Faking) -> None:
    body = b'{"content":"' + b"x" * 986 + b'"}'
    async with running({**faking("--fake-echo"), "server.max_body": 1000}) as llamasup:
        assert (await llamasup.ask("POST", "/tokenize", body)).status == 200
        assert (await llamasup.ask("POST", "/tokenize", body + b" ")).status == 413


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
async def test_a_large_body_reaches_the_engine_whole(
    faking: Faking, size: int, chunked: bool
) -> None:
    body = b'{"model":"fake","content":"' + b"x" * size + b'"}'
    async with running(faking("--fake-echo")) as llamasup, llamasup.connect() as client:
        for _ in range(2):
            if chunked:
                headers = {"Transfer-Encoding": "chunked"}
                chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                await client.send(request("POST", "/tokenize", headers=headers) + chunks)
            else:
                await client.send(request("POST", "/tokenize", body))
            assert (await client.reply()).json()["body"].encode() == body


async def test_a_large_body_is_sent_again_when_its_engine_dies(
    faking: Faking, journal: Journal
) -> None:
    asked = chat(3, stream=True, extra="x" * (3 << 20))
    async with running(
        faking("--fake-die-at-byte", "-1", "--fake-scripted-lives", "1")
    ) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", asked)
        assert reply.text() == " 0 1 2"
    assert len(journal.entries("died")) == 1


async def test_a_byte_order_mark_is_no_fault(faking: Faking) -> None:
    async with running(faking("--fake-echo")) as llamasup:
        for size in (1, 2 << 20):
            body = b'\xef\xbb\xbf{"model":"fake","content":"' + b"x" * size + b'"}'
            assert (await llamasup.ask("POST", "/tokenize", body)).status == 200


async def test_a_head_may_be_larger_than_a_quarter_megabyte_where_that_is_wished(
    faking: Faking,
) -> None:
    async with running({**faking(), "server.max_head": 600_000}) as llamasup:
        reply = await llamasup.ask("GET", "/nope", headers={"X": "x" * 500_000})
        assert reply.status == 404


# --- patience ---


async def test_a_head_that_takes_too_long_times_out(faking: Faking) -> None:
    async with (
        running({**faking(), "server.head_timeout": "0.2s"}) as llamasup,
        llamasup.connect() as client,
    ):
        await client.send(b"GET /health HTTP/1.1\r\nHo")
        reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (408, "request_timeout")
        assert await ends(client)


async def test_a_head_that_dribbles_in_times_out_all_the_same(faking: Faking) -> None:
    async with (
        running({**faking(), "server.head_timeout": "0.3s"}) as llamasup,
        llamasup.connect() as client,
        trio.open_nursery() as nursery,
    ):

        async def dribble() -> None:
            while True:
                await client.send(b"x")
                await trio.sleep(0.01)

        nursery.start_soon(dribble)
        assert (await client.reply()).status == 408
        nursery.cancel_scope.cancel()


async def test_a_body_that_stops_coming_times_out(faking: Faking) -> None:
    async with (
        running({**faking(), "server.body_timeout": "0.2s"}) as llamasup,
        llamasup.connect() as client,
    ):
        await client.send(request("POST", "/tokenize", b'{"content": 1}')[:-5])
        reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (408, "request_timeout")
        assert await ends(client)


@pytest.mark.parametrize("before", [b"", request("GET", "/health")])
async def test_an_idle_connection_is_closed_without_a_word(faking: Faking, before: bytes) -> None:
    async with (
        running({**faking(), "server.idle_timeout": "0.3s"}) as llamasup,
        llamasup.connect() as client,
    ):
        if before:
            await client.send(before)
            assert (await client.reply()).status == 200
        assert await ends(client)


async def test_blank_lines_are_no_request_and_keep_no_connection_open(faking: Faking) -> None:
    async with (
        running({**faking(), "server.idle_timeout": "0.4s"}) as llamasup,
        llamasup.connect() as chatty,
        llamasup.connect() as silent,
        trio.open_nursery() as nursery,
    ):

        async def dribble() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await chatty.send(b"\r\n")
                    await trio.sleep(0.05)

        nursery.start_soon(dribble)
        with trio.fail_after(3):
            assert await ends(silent)  # though it came after the other one
            with suppress(trio.BrokenResourceError):
                assert await ends(chatty)
        nursery.cancel_scope.cancel()


async def test_a_shorter_patience_with_idle_connections_counts_at_once(
    mock_clock: MockClock,
) -> None:
    in_effect = InEffect(Config(server=Server(idle_timeout=Seconds(86400))))
    desk = Desk(in_effect, None, None, None, NO_BODIES, events.Journal())  # type: ignore[arg-type]
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        guests = Guests[Conversation]()
        conversation = Conversation(Connection(ours, Server().send_timeout), desk, guests)
        guests.add(conversation, "here")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversation.run)
            nursery.start_soon(end_idle, guests, desk)
            await wait_all_tasks_blocked()
            in_effect.replace(Config(server=Server(idle_timeout=Seconds(10))))
            for _ in range(10):
                mock_clock.jump(1.2)
                await wait_all_tasks_blocked()
            assert not guests
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("parts", [1, 2])
async def test_what_comes_in_the_very_moment_in_which_patience_ends_is_answered(
    mock_clock: MockClock, parts: int
) -> None:
    answered = trio.Event()

    class Answering:
        def route(self, *_: object) -> None:
            answered.set()
            raise RouteNotFound("nothing here")

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        desk = Desk(InEffect(Config()), None, None, None, NO_BODIES, events.Journal())  # type: ignore[arg-type]
        desk.router = Answering()  # type: ignore[assignment]
        connection = Connection(ours, Server().send_timeout)
        guests = Guests[Conversation]()
        conversation = Conversation(connection, desk, guests)
        guests.add(conversation, "here")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversation.run)
            nursery.start_soon(end_idle, guests, desk)
            await wait_all_tasks_blocked()
            whole = request("GET", "/nope")
            theirs.send(whole[: len(whole) // parts])
            mock_clock.jump(Server().idle_timeout)
            await wait_all_tasks_blocked()
            theirs.send(whole[len(whole) // parts :])
            await wait_all_tasks_blocked()
            assert answered.is_set()
            for _ in range(2):
                assert theirs.recv(9999).startswith(b"HTTP/1.1 404 ")
                theirs.send(whole)
                await wait_all_tasks_blocked()
            mock_clock.jump(Server().idle_timeout * 1.2)
            await wait_all_tasks_blocked()
            assert not guests
            nursery.cancel_scope.cancel()


async def test_patience_does_not_run_out_while_the_engine_answers(faking: Faking) -> None:
    impatient = {f"server.{name}_timeout": "0.2s" for name in ("head", "body", "idle")}
    async with running({**faking("--fake-first-byte-delay", "0.6"), **impatient}) as llamasup:
        assert (await llamasup.ask("POST", "/v1/chat/completions", chat(3))).text() == " 0 1 2"


async def test_a_client_that_stops_reading_is_left_and_its_answer_looks_cut(
    faking: Faking, journal: Journal
) -> None:
    endless = request("POST", "/v1/chat/completions", chat(300_000))
    async with (
        running({**faking(), "server.send_timeout": "0.3s"}) as llamasup,
        llamasup.connect() as client,
    ):
        await client.send(endless.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        await journal.first("client closed")
        reply = await client.reply()
        assert reply.status == 200
        assert not reply.complete


async def test_a_client_that_half_closes_never_sees_its_answer_end_cleanly(
    faking: Faking, journal: Journal
) -> None:
    long = request("POST", "/v1/chat/completions", chat(1000))
    async with running(faking("--fake-token-delay", "0.02")) as llamasup:
        async with llamasup.connect() as client:
            await client.send(long.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
            assert await client.read_until(b'" 0"')
            client.leave_by_half_close()
            with pytest.raises(trio.BrokenResourceError):
                await drained(client)
        await journal.first("client closed")


async def test_a_conversation_leaves_no_trace_when_its_client_has_gone(faking: Faking) -> None:
    async with running(faking("--fake-echo")) as llamasup:
        await llamasup.ask("POST", "/tokenize", {})
        before = tasks()
        async with llamasup.connect() as client:
            await tokenized(client, "x")
            assert len(tasks()) > len(before)
        await eventually(lambda: tasks() == before)

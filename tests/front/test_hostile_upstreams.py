"""Whatever an upstream answers, its client gets an answer that is whole or visibly is not, in time,
and everybody else is left undisturbed.

The upstream is made by hand, and stands in place of a real child's socket. Each row of the table
says what it sends and what the client sees of that.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from attrs import define, field, frozen

from llamasup.config.addresses import UnixAddress
from llamasup.http.framing import LAST_CHUNK, chunk
from llamasup.http.wire import Wire, dial
from llamasup.pool.child_lease import ChildLease
from tests.harness import (
    PATIENCE,
    Client,
    Llamasup,
    Reply,
    chat,
    eventually,
    loop_holdups,
    request,
    running,
    tasks,
)

Faking = Callable[..., Mapping[str, object]]


# --- the table ---


@frozen
class Pause:
    """So many seconds without a byte."""

    seconds: float = 0.02


@frozen
class Stay:
    """Nothing more is sent, and the connection stays open until the other side closes it."""


Part = bytes | Pause | Stay


@frozen
class Told:
    """The client is told by an error of ours, and can use its connection for the next request."""

    status: int = 502
    code: str = "engine_failed"


@frozen
class Passed:
    """The client gets this content, whole, and can use its connection for the next request."""

    content: bytes = b"0123456789"
    status: int = 200


@frozen
class Cut:
    """The connection breaks within the answer."""


@frozen
class CutStream:
    """The stream ends with an error event of ours."""

    code: str = "engine_lost"


Outcome = Told | Passed | Cut | CutStream

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
COUNTED = OK + b"Content-Length: 10\r\n\r\n0123456789"
TE = b"Transfer-Encoding: chunked\r\n"
CHUNKED = OK + TE + b"\r\n"
CLOSED = OK + b"\r\n0123456789"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + TE + b"\r\n"
EVENT = b'data: {"choices":[{"delta":{"content":"0123456789"}}]}\n\n'
WHOLE = b"".join((chunk(b"0123456789"), LAST_CHUNK))
LATER = Pause()
"""What stands before it has reached the client when the rest comes."""

LOST = Told(code="engine_lost")

HEADS: dict[str, tuple[Sequence[Part], Outcome]] = {
    "not HTTP": ([b"SSH-2.0-OpenSSH\r\n\r\n"], Told()),
    "nothing but blank lines": ([b"\r\n\r\n\r\n"], Told()),
    "HTTP/0.9": ([b"0123456789"], LOST),
    "HTTP/2": ([COUNTED.replace(b"1.1", b"2", 1)], Told()),
    "HTTP/1.2": ([COUNTED.replace(b"1.1", b"1.2", 1)], Told()),
    "status 600": ([COUNTED.replace(b"200", b"600")], Told()),
    "status 099": ([COUNTED.replace(b"200", b"099")], Told()),
    "status 2e2": ([COUNTED.replace(b"200", b"2e2")], Told()),
    "status 20": ([COUNTED.replace(b"200", b"20")], Told()),
    "no reason": ([COUNTED.replace(b" OK", b"")], Passed()),
    "a reason of odd bytes": ([COUNTED.replace(b"OK", b"\xe9\xff!")], Passed()),
    "a line without end": ([OK + b"X: " + b"x" * 200_000], Told()),
    "headers without end": ([OK + b"X: 1\r\n" * 40_000], Told()),
    "101 headers": ([OK + b"X: 1\r\n" * 101 + b"\r\n"], Told()),
    "a header without a colon": ([OK + b"no colon\r\n\r\n"], Told()),
    "an empty name": ([OK + b": 1\r\n\r\n"], Told()),
    "a space in a name": ([OK + b"X Y: 1\r\n\r\n"], Told()),
    "a space behind a name": ([OK + b"Content-Length : 5\r\n\r\n12345"], Told()),
    "a folded line": ([OK + b"X: 1\r\n Content-Length: 5\r\n\r\n12345"], Told()),
    "bare newlines": ([COUNTED.replace(b"\r\n", b"\n")], LOST),
    "a bare newline": ([OK + b"X: a\nSet-Cookie: b\r\n\r\n"], Told()),
    "a bare carriage return": ([OK + b"X: a\rSet-Cookie: b\r\n\r\n"], Told()),
    "a NUL": ([OK + b"X: \0\r\n\r\n"], Told()),
    "an escape": ([OK + b"X: \x1b[2J\r\n\r\n"], Told()),
    "a head cut off": ([OK], LOST),
    "a head byte by byte": ([COUNTED[at : at + 1] for at in range(len(COUNTED))], Passed()),
    "a redirection": (
        [b"HTTP/1.1 302 X\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"],
        Passed(b"", 302),
    ),
    "a header that is only for us": ([OK + b"Connection: X-Y\r\nX-Y: 1\r\n\r\n0"], Passed(b"0")),
    "a Connection that names the length": (
        [COUNTED.replace(b"\r\n\r\n", b"\r\nConnection: content-length\r\n\r\n")],
        Passed(),
    ),
}

INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
INTERIM_REPLIES: dict[str, tuple[Sequence[Part], Outcome]] = {
    "100 Continue": ([b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED], Passed()),
    "103 Early Hints, twice": (
        [INTERIM, Pause(), INTERIM, Pause(), COUNTED],
        Passed(),
    ),
    "interim replies without end": ([INTERIM * 10_000], Told()),
    "an interim reply alone": ([INTERIM], LOST),
    "another protocol": ([b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n", Stay()], Told()),
}

LENGTHS: dict[str, tuple[Sequence[Part], Outcome]] = {
    "a body that is too short": ([COUNTED[:-1]], Cut()),
    "a body that is too short by far": ([COUNTED.replace(b": 10", b": 1" + b"0" * 17)], Cut()),
    "a body that is too long": ([COUNTED + b"more"], Passed()),
    "a body that is too long, later": ([COUNTED, LATER, b"more" * 10_000], Passed()),
    "two lengths": ([OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456"], Told()),
    "two equal lengths": ([OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n12345"], Told()),
    "a list of lengths": ([OK + b"Content-Length: 5, 5\r\n\r\n12345"], Told()),
    "a negative length": ([OK + b"Content-Length: -1\r\n\r\n"], Told()),
    "a hexadecimal length": ([OK + b"Content-Length: 0xA\r\n\r\n0123456789"], Told()),
    "a length of 5,000 digits": ([OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"], Told()),
    "no length, until it closes": ([CLOSED], Passed()),
    "a body byte by byte": ([COUNTED[:-10], *(COUNTED[at:][:1] for at in range(-10, 0))], Passed()),
}  # fmt: skip

CHUNKS: dict[str, tuple[Sequence[Part], Outcome]] = {
    "chunks": ([CHUNKED + WHOLE], Passed()),
    "chunks byte by byte": ([CHUNKED, *(WHOLE[at : at + 1] for at in range(len(WHOLE)))], Passed()),
    "a length and chunks": ([OK + b"Content-Length: 5\r\n" + TE + b"\r\n" + WHOLE], Told()),
    "chunks twice": ([OK + TE + TE + b"\r\n" + WHOLE], Told()),
    "another coding": ([OK + b"Transfer-Encoding: gzip\r\n\r\n0123456789"], Told()),
    "two codings": ([OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + WHOLE], Told()),
    "chunks in HTTP/1.0": ([(CHUNKED + WHOLE).replace(b"1.1", b"1.0", 1)], Told()),
    "a size that is no number": ([CHUNKED + b"ten\r\n0123456789\r\n"], Told()),
    "a size that is no number, later": (
        [CHUNKED + chunk(b"0"), LATER, b"ten\r\n0123456789\r\n"],
        Cut(),
    ),
    "a negative size": ([CHUNKED + b"-1\r\n0\r\n"], Told()),
    "a size over 64 bits": ([CHUNKED + b"1" + b"0" * 16 + b"\r\n0123456789\r\n"], Told()),
    "a size of many zeros": ([CHUNKED + b"0" * 1000 + b"a\r\n0123456789\r\n"], Told()),
    "a huge size": ([CHUNKED + b"f" * 15 + b"\r\n0123456789"], Cut()),
    "an extension": ([CHUNKED + b"a;b=c\r\n0123456789\r\n" + LAST_CHUNK], Told()),
    "a chunk that is too long": ([CHUNKED + b"5\r\n0123456789\r\n" + LAST_CHUNK], Told()),
    "no end of chunks": ([CHUNKED + chunk(b"0123456789")], Cut()),
    "chunks after the end": ([CHUNKED + WHOLE + WHOLE], Passed()),
    "trailers": ([CHUNKED + WHOLE[:-2] + b"X-Sum: 1\r\nSet-Cookie: a\r\n\r\n"], Passed()),
    "trailers without end": ([CHUNKED + chunk(b"0"), LATER, b"0\r\n", b"X: 1\r\n" * 5000], Cut()),
    "a trailer line without end": ([CHUNKED + chunk(b"0"), LATER, b"0\r\nX" * 5000], Cut()),
    "thousands of chunks of a byte": (
        [CHUNKED, b"1\r\na\r\n" * 50_000, LAST_CHUNK],
        Passed(b"a" * 50_000),
    ),
}

CONNECTIONS: dict[str, tuple[Sequence[Part], Outcome]] = {
    "no answer": ([], LOST),
    "a second answer": ([COUNTED + COUNTED], Passed()),
    "a second answer, later": ([COUNTED, LATER, COUNTED], Passed()),
    "a connection that stays open": (
        [COUNTED.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"), Stay()],
        Passed(),
    ),
    "chunks, and a connection that stays open": ([CHUNKED + WHOLE, Stay()], Passed()),
    "a body after 204": ([COUNTED.replace(b"200 OK", b"204 X"), Stay()], Passed(b"", 204)),
    "chunks after 204": ([(CHUNKED + WHOLE).replace(b"200 OK", b"204 X")], Passed(b"", 204)),
    "a body after 304": ([COUNTED.replace(b"200 OK", b"304 X"), Stay()], Passed(b"", 304)),
    "a body after 205": ([COUNTED.replace(b"200 OK", b"205 X")], Passed(status=205)),
    "what is said to be gzip, and is not": (
        [COUNTED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")],
        Passed(),
    ),
}

ERRORS: dict[str, tuple[Sequence[Part], Outcome]] = {
    "an error": ([COUNTED.replace(b"200 OK", b"500 X")], Passed(status=500)),
    "an error with its own Retry-After": (
        [COUNTED.replace(b"200 OK\r\n", b"429 X\r\nRetry-After: 7\r\n")],
        Passed(status=429),
    ),
    "an error in chunks": ([(CHUNKED + WHOLE).replace(b"200", b"500")], Passed(status=500)),
    "an error until it closes": ([CLOSED.replace(b"200", b"500")], Passed(status=500)),
    "an error that is too short": ([COUNTED[:-1].replace(b"200", b"500")], Cut()),
    "an error in bad chunks": ([(CHUNKED + b"x\r\n").replace(b"200", b"500")], Told()),
    "an error of a megabyte": (
        [OK.replace(b"200", b"500") + b"Content-Length: 1000000\r\n\r\n" + b"e" * 1_000_000],
        Passed(b"e" * 1_000_000, 500),
    ),
    "an error as a stream": (
        [(STREAM + chunk(EVENT) + LAST_CHUNK).replace(b"200", b"500")],
        Passed(EVENT, 500),
    ),
    "an error that is JSON up to its middle": (
        [b'HTTP/1.1 400 X\r\nContent-Length: 9\r\n\r\n{"error":'],
        Passed(b'{"error":', 400),
    ),
    "an error of ten thousand brackets": (
        [b"HTTP/1.1 500 X\r\nContent-Length: 10000\r\n\r\n" + b"[" * 10_000],
        Passed(b"[" * 10_000, 500),
    ),
}

STREAMS: dict[str, tuple[Sequence[Part], Outcome]] = {
    "a stream": ([STREAM + chunk(EVENT), LATER, chunk(EVENT) + LAST_CHUNK], Passed(EVENT * 2)),
    "a stream byte by byte": (
        [STREAM, *(chunk(EVENT[at : at + 1]) for at in range(len(EVENT))), LAST_CHUNK],
        Passed(EVENT),
    ),
    "a stream without its last chunk": ([STREAM + chunk(EVENT * 2)], CutStream()),
    "a stream cut between two events": ([STREAM + chunk(EVENT), LATER], CutStream()),
    "a stream cut within an event": ([STREAM + chunk(EVENT), LATER, b"20\r\ndata: {"], CutStream()),
    "a stream cut within a long event": (
        [STREAM + b"fffff\r\n" + b"data: " + b"x" * 200_000, LATER],
        Cut(),
    ),
    "a stream cut before its first word": ([STREAM + chunk(b": ping\n\n"), LATER], CutStream()),
    "a stream with bad chunks": (
        [STREAM + chunk(EVENT), LATER, b"x\r\n" + EVENT + LAST_CHUNK],
        CutStream(),
    ),
    "a stream without a single event": ([STREAM + LAST_CHUNK], Passed(b"")),
    "a stream that is announced and empty": (
        [STREAM.replace(TE, b"Content-Length: 0\r\n")],
        Passed(b""),
    ),
    "a stream that is no text": (
        [STREAM + chunk(b"\x1f\x8b\x08" + bytes(range(256)) * 40) + LAST_CHUNK],
        Passed(b"\x1f\x8b\x08" + bytes(range(256)) * 40),
    ),
    "an event without end": (
        [STREAM + chunk(b"data: " + b"x" * 300_000) + LAST_CHUNK],
        Passed(b"data: " + b"x" * 300_000),
    ),
    "an event of ten thousand brackets": (
        [STREAM + chunk(b"data: " + b"[" * 10_000 + b"\n\n") + LAST_CHUNK],
        Passed(b"data: " + b"[" * 10_000 + b"\n\n"),
    ),
    "an error event after the first word": (
        [STREAM + chunk(EVENT + b'data: {"error":{"message":"no"}}\n\n') + LAST_CHUNK],
        Passed(EVENT + b'data: {"error":{"message":"no"}}\n\n'),
    ),
}

WHOLE_ANSWERS = (HEADS, INTERIM_REPLIES, LENGTHS, CHUNKS, CONNECTIONS, ERRORS)
TABLE = {
    **{name: (*row, False) for rows in WHOLE_ANSWERS for name, row in rows.items()},
    **{name: (*row, True) for name, row in STREAMS.items()},
}
"""With what is asked for: a stream or not."""


# --- the upstream ---


@define
class Upstream:
    """Plays what it is told, once for each connection."""

    path: str
    parts: Sequence[Part] = ()
    asked: list[bytes] = field(factory=list)
    open: int = 0
    """How many connections have not ended."""

    async def play(self, stream: trio.SocketStream) -> None:
        self.open += 1
        try:
            async with stream:
                # Who ended the connection first is for the client's test to say.
                with suppress(trio.BrokenResourceError):
                    await self._play(stream)
        finally:
            self.open -= 1

    async def _play(self, stream: trio.SocketStream) -> None:
        self.asked.append(bytes(await stream.receive_some(1 << 20)))
        for part in self.parts:
            match part:
                case Pause(seconds):
                    await trio.sleep(seconds)
                case Stay():
                    while await stream.receive_some():
                        pass
                case bytes():
                    await stream.send_all(part)
                    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def standing_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    """A hand-made upstream in place of every child."""
    upstream = Upstream(str(folder / "upstream.sock"))

    async def connect(_: ChildLease) -> Wire:
        return await dial(UnixAddress(upstream.path))

    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(upstream.path)
        listener.listen(100)
        async with trio.open_nursery() as nursery:
            serving = [trio.SocketListener(listener)]
            nursery.start_soon(trio.serve_listeners, upstream.play, serving)
            monkeypatch.setattr(ChildLease, "connect", connect)
            yield upstream
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def stage(
    config: Mapping[str, object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Llamasup, Upstream]]:
    """llamasup with a child that is loaded and well, and the upstream in place of its socket."""
    async with running(config) as llamasup:
        assert (await llamasup.ask("POST", "/tokenize", {})).status == 200
        async with standing_in(folder, monkeypatch) as upstream:
            yield llamasup, upstream


# --- what the client sees ---

CONVERSATION = "Front._attend"


async def reply_to(client: Client, asked: object) -> Reply | None:
    """The reply; None if the connection broke before it had a head."""
    await client.send(request("POST", "/v1/chat/completions", asked))
    try:
        return await client.reply()
    except EOFError:
        return None


def outcome(reply: Reply | None, expected: Outcome) -> Outcome | Reply | None:
    """What the client has seen, if that is the same sort as expected; else all of it."""
    match expected:
        case Cut() if reply is None or not reply.complete:
            return Cut()
        case Told() if reply and reply.complete and "x-request-id" in reply.headers:
            return Told(reply.status, reply.error["code"])
        case Passed() if reply and reply.complete:
            return Passed(reply.body, reply.status)
        case CutStream() if reply and reply.complete:
            return CutStream(json.loads(reply.events()[-1])["error"]["code"])
    return reply


def nobody_is_attended() -> bool:
    return not any(CONVERSATION in task for task in tasks())


async def test_a_client_sees_of_each_answer_what_the_table_says(
    faking: Faking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, object] = {}
    held_up: dict[str, float] = {}
    async with stage(faking(), tmp_path, monkeypatch) as (llamasup, upstream):
        with loop_holdups() as holdups:
            for name, (parts, expected, streams) in TABLE.items():
                upstream.parts = parts
                async with llamasup.connect() as client:
                    seen[name] = outcome(await reply_to(client, chat(1, stream=streams)), expected)
                    if isinstance(expected, Told | Passed):
                        await client.send(request("GET", "/health"))
                        assert (await client.reply()).status == 200, name
                held_up[name] = holdups.longest(CONVERSATION)
                holdups.taken()
                await eventually(lambda: not upstream.open)
                await eventually(nobody_is_attended)
        assert (await llamasup.model_status("fake"))["loads"] == 1  # nobody blamed the child
    assert seen == {name: expected for name, (_, expected, _) in TABLE.items()}
    assert {name: took for name, took in held_up.items() if took > 0.01} == {}


async def test_no_header_of_an_upstreams_passes_for_one_of_ours(
    faking: Faking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = b"X-Llamasup-Model: other\r\nX-Request-ID: other\r\nAccess-Control-Allow-Origin: *\r\n"
    forged += b"Keep-Alive: timeout=5\r\nTrailer: X\r\nUpgrade: h2c\r\nVia: 1.1 inner\r\n"
    async with stage(faking(), tmp_path, monkeypatch) as (llamasup, upstream):
        upstream.parts = [COUNTED.replace(b"\r\n\r\n", b"\r\n" + forged + b"\r\n")]
        async with llamasup.connect() as client:
            await client.send(request("POST", "/v1/chat/completions", chat(1, stream=False)))
            head = await client.read_until(b"\r\n\r\n")
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]]
    assert names.count(b"x-llamasup-model") == names.count(b"x-request-id") == 1
    assert b"other" not in head
    assert not {b"access-control-allow-origin", b"keep-alive", b"trailer", b"upgrade"} & {*names}
    assert names.count(b"via") == 2  # it has passed through both


async def test_a_body_in_the_answer_to_head_is_not_read_as_the_next_answer(
    faking: Faking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(faking(), tmp_path, monkeypatch) as (llamasup, upstream):
        for whole in (COUNTED, CHUNKED + WHOLE, CLOSED):
            upstream.parts = [whole, Stay()]
            async with llamasup.connect() as client:
                await client.send(request("HEAD", "/props"))
                assert (await client.reply(to_head=True)).status == 200
                await client.send(request("GET", "/health"))
                assert (await client.reply()).json()["status"] == "ok"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (COUNTED.replace(b"200 OK", b"413 X"), Passed(status=413)),
        (COUNTED, Passed()),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED, Passed()),
        (CHUNKED + chunk(b"0123456789"), Cut()),
    ],
)
async def test_an_answer_may_come_before_the_request_has_ended(
    faking: Faking,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
    expected: Outcome,
) -> None:
    """The upstream reads a part of a large body, answers, and closes."""
    asked = chat(1, stream=False) | {"x": "x" * (8 << 20)}
    async with stage(faking(), tmp_path, monkeypatch) as (llamasup, upstream):
        upstream.parts = [answer, Pause(0.1)]
        async with llamasup.connect() as client:
            assert outcome(await reply_to(client, asked), expected) == expected


SILENCE: dict[str, Sequence[Part]] = {
    "from the beginning": [Stay()],
    "within the head": [OK, Stay()],
    "after an interim reply": [INTERIM, Stay()],
    "after the head": [CHUNKED, Stay()],
    "within the body": [COUNTED[:-1], Stay()],
    "within a chunk": [CHUNKED + b"f\r\n0123456789", Stay()],
    "within an error": [COUNTED[:-1].replace(b"200", b"500"), Stay()],
    "before the first event": [STREAM, Stay()],
    "within the first event": [STREAM + chunk(b"data: {"), Stay()],
    "after an event": [STREAM + chunk(EVENT), Stay()],
    "after pings": [STREAM + chunk(b": ping\n\n"), Pause(), chunk(b": ping\n\n"), Stay()],
}


@pytest.mark.parametrize("leave", ["leave_by_fin", "leave_by_reset", "leave_by_half_close"])
async def test_who_leaves_a_silent_upstream_leaves_it_at_once(
    faking: Faking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave: str
) -> None:
    async with stage(faking(), tmp_path, monkeypatch) as (llamasup, upstream):
        for parts in SILENCE.values():
            upstream.parts = parts
            asked = len(upstream.asked)
            async with llamasup.connect() as client:
                await client.send(request("POST", "/v1/chat/completions", chat(1)))
                await eventually(lambda before=asked: len(upstream.asked) > before)  # type: ignore[misc]
                await trio.sleep(0.03)
                getattr(client, leave)()
                await eventually(lambda: not upstream.open, within=2)
        await eventually(nobody_is_attended)


async def test_no_silence_keeps_llamasup_from_stopping(
    faking: Faking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**faking(parallel=len(SILENCE)), "server.drain_timeout": "0.1s"}
    with trio.fail_after(PATIENCE):
        async with standing_in(tmp_path, monkeypatch) as upstream, AsyncExitStack() as clients:
            async with running(config) as llamasup:
                for parts in SILENCE.values():
                    upstream.parts = parts
                    asked = len(upstream.asked)
                    client = await clients.enter_async_context(llamasup.connect())
                    await client.send(request("POST", "/v1/chat/completions", chat(1)))
                    await eventually(lambda before=asked: len(upstream.asked) > before)  # type: ignore[misc]
            await eventually(lambda: not upstream.open)

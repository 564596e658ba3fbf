"""What attackers send is refused, reaches no engine, and leaves everybody else undisturbed."""

from __future__ import annotations

import random
import re
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path

import psutil
import pytest
import trio

from llamasup.config.load import dump, load
from llamasup.errors import ClientError, LlamasupError
from llamasup.front.body_limits import take_content
from llamasup.front.routes import Router, ToControl
from llamasup.http.requests import Request, parse_head, take_head
from tests.fuzz.mutants import FORM, REQUESTS, mutants
from tests.harness import (
    PATIENCE,
    Client,
    Journal,
    Llamasup,
    Reply,
    chat,
    eventually,
    loop_holdups,
    request,
    running,
    started,
    tasks,
)

Faking = Callable[..., Mapping[str, object]]

SMUGGLED = b"GET /props?smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
HASTY = {f"server.{name}_timeout": "0.3s" for name in ("head", "body", "idle")}


def post(*headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    lines = [b"POST /tokenize HTTP/" + version, b"Host: a", *headers, b"", body]
    return b"\r\n".join(lines)


def get(target: bytes = b"/props", version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    return b"%b %b %b\r\nHost: a\r\n\r\n" % (method, target, version)


TE = b"Transfer-Encoding: chunked"
CL5 = b"Content-Length: 5"
LAST_CHUNK = b"0\r\n\r\n"

FRAMINGS = {
    "a length and chunks": post(CL5, TE, body=LAST_CHUNK),
    "chunks and a length": post(TE, CL5, body=LAST_CHUNK),
    "two equal lengths": post(CL5, CL5, body=b"12345"),
    "two different lengths": post(CL5, b"Content-Length: 0", body=b"12345"),
    "two lengths of different case": post(CL5, b"content-length: 0", body=b"12345"),
    "a list of lengths": post(b"Content-Length: 5, 5", body=b"12345"),
    "a length with a plus": post(b"Content-Length: +5", body=b"12345"),
    "a negative length": post(b"Content-Length: -1"),
    "a hexadecimal length": post(b"Content-Length: 0x5", body=b"12345"),
    "an underscored length": post(b"Content-Length: 0_5", body=b"12345"),
    "an empty length": post(b"Content-Length:"),
    "an endless length": post(b"Content-Length: " + b"9" * 5000),
    "a space before the colon of a length": post(b"Content-Length : 5", body=b"12345"),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=LAST_CHUNK),
    "chunked twice": post(TE, TE, body=LAST_CHUNK),
    "chunked twice in one": post(b"Transfer-Encoding: chunked, chunked", body=LAST_CHUNK),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=LAST_CHUNK),
    "identity, then chunked": post(b"Transfer-Encoding: identity", TE, body=LAST_CHUNK),
    "a quoted coding": post(b'Transfer-Encoding: "chunked"', body=LAST_CHUNK),
    "a coding after a vertical tab": post(b"Transfer-Encoding:\x0bchunked", body=LAST_CHUNK),
    "a coding after a NUL": post(b"Transfer-Encoding: \0chunked", body=LAST_CHUNK),
    "a coding folded": post(b"Transfer-Encoding:\r\n chunked", body=LAST_CHUNK),
    "a space before the colon of a coding": post(b"Transfer-Encoding : chunked", body=LAST_CHUNK),
    "a coding in a folded line": post(b"X: 1", b" " + TE, CL5, body=b"12345"),
    "a coding after a bare CR": post(b"X: 1\r" + TE, CL5, body=b"12345"),
    "a coding after a bare LF": post(b"X: 1\n" + TE, CL5, body=b"12345"),
    "chunks in HTTP/1.0": post(TE, body=LAST_CHUNK, version=b"1.0"),
    "a chunk extension": post(TE, body=b"5;a=b\r\n12345\r\n" + LAST_CHUNK),
    "a chunk extension with a newline": post(TE, body=b"5;\nx\r\n12345\r\n" + LAST_CHUNK),
    "a chunk size over 64 bits": post(TE, body=b"10000000000000005\r\n12345\r\n" + LAST_CHUNK),
    "a chunk size in another notation": post(TE, body=b"0x5\r\n12345\r\n" + LAST_CHUNK),
    "a negative chunk size": post(TE, body=b"-5\r\n12345\r\n" + LAST_CHUNK),
    "a chunk size with a space": post(TE, body=b"5 \r\n12345\r\n" + LAST_CHUNK),
    "a chunk line with a bare LF": post(TE, body=b"5\n12345\r\n" + LAST_CHUNK),
    "a chunk with a bare LF behind it": post(TE, body=b"5\r\n12345\n" + LAST_CHUNK),
    "a chunk longer than its size": post(TE, body=b"5\r\n123456\r\n" + LAST_CHUNK),
    "a last chunk with bare LFs": post(TE, body=b"0\n\n"),
    "a trailer with a bare LF": post(TE, body=b"0\r\nX: 1\n\r\n"),
}

HEADS = {
    "a NUL in a value": get(b"/props HTTP/1.1\r\nX: a\0b"),
    "a NUL in a name": post(b"X\0: 1"),
    "an escape in a value": post(b"X: \x1b[2J"),
    "a control character in a name": post(b"X\x01: 1"),
    "a bare CR in a value": post(b"X: a\rb"),
    "a bare CR for a line": b"GET /props HTTP/1.1\rHost: a\r\n\r\n",
    "a folded header": post(b"X: a", b" b"),
    "a folded first header": b"GET /props HTTP/1.1\r\n Host: a\r\n\r\n",
    "a space before a colon": post(b"X : 1"),
    "an empty name": post(b": 1"),
    "a header without a colon": post(b"X"),
    "no host": b"GET /props HTTP/1.1\r\n\r\n",
    "two hosts": post(b"Host: b"),
    "ten thousand headers": post(*[b"X:1"] * 10_000),
    "a megabyte of request line": get(b"/" + b"x" * (1 << 20)),
    "a megabyte of header": post(b"X: " + b"x" * (1 << 20)),
    **{
        f"a bare LF for line end {at}": get().replace(b"\r\n", b"\0", at)
        .replace(b"\r\n", b"\n", 1)
        .replace(b"\0", b"\r\n")
        for at in range(3)
    },
    "bare LFs alone": get().replace(b"\r\n", b"\n"),
}  # fmt: skip

REQUEST_LINES = {
    "a target that is no path": get(b"props"),
    "an asterisk": get(b"*"),
    "an authority": get(b"host:443"),
    "CONNECT": get(b"host:443", method=b"CONNECT"),
    "CONNECT to a path": get(method=b"CONNECT"),
    "another scheme": get(b"ftp://host/props"),
    "a method in lower case": get(method=b"get"),
    "an unknown method": get(method=b"BREW"),
    "TRACE": get(method=b"TRACE"),
    "OPTIONS": get(method=b"OPTIONS"),
    "an empty method": get(method=b""),
    "a space in the target": get(b"/props x"),
    "two spaces": get(b" /props"),
    "a tab": b"GET\t/props HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /props\r\n\r\n",
    "HTTP/0.9 by name": get(version=b"HTTP/0.9"),
    "HTTP/1.2": get(version=b"HTTP/1.2"),
    "HTTP/3.0": get(version=b"HTTP/3.0"),
    "HTTP/11": get(version=b"HTTP/11"),
    "http in lower case": get(version=b"http/1.1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(500),
    "a path out of the root": get(b"/../props"),
    "an encoded path": get(b"/%70rops"),
    "a double slash": get(b"//props"),
}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def replies(client: Client) -> list[Reply]:
    """Every reply until the connection ends, however it does."""
    found: list[Reply] = []
    with trio.fail_after(PATIENCE):
        while head := await client.read_until(b"\r\n\r\n"):
            if head != CONTINUE:
                client.unread[:0] = head
                found.append(await client.reply())
    assert not client.unread
    return found


async def answers_to(llamasup: Llamasup, data: bytes) -> list[Reply]:
    """What comes back for `data` on a connection of its own, until it ends."""
    async with llamasup.connect() as client:
        with suppress(trio.BrokenResourceError):
            await client.send(data)
        return await replies(client)


async def serves_on(llamasup: Llamasup) -> None:
    assert (await llamasup.ask("GET", "/health")).status == 200


@pytest.mark.parametrize("name", FRAMINGS)
async def test_a_framing_that_two_servers_might_read_differently_hides_no_request(
    faking: Faking, journal: Journal, name: str
) -> None:
    async with running({**faking("--fake-echo"), **HASTY}) as llamasup:
        answers = await answers_to(llamasup, FRAMINGS[name] + SMUGGLED)
        assert [answer.status for answer in answers] in ([400], [413], [501])
        assert answers[0].headers["connection"] == "close"
        assert not journal.entries()
        await serves_on(llamasup)


@pytest.mark.parametrize("name", HEADS)
async def test_a_head_that_is_not_clean_is_refused_and_ends_the_connection(
    faking: Faking, journal: Journal, name: str
) -> None:
    async with running({**faking("--fake-echo"), **HASTY}) as llamasup:
        answers = await answers_to(llamasup, HEADS[name] + SMUGGLED)
        assert [answer.status for answer in answers] in ([400], [431])
        assert not journal.entries()
        await serves_on(llamasup)


@pytest.mark.parametrize("name", REQUEST_LINES)
async def test_an_odd_request_line_reaches_no_engine(
    faking: Faking, journal: Journal, name: str
) -> None:
    async with running({**faking("--fake-echo"), **HASTY}) as llamasup:
        answers = await answers_to(llamasup, REQUEST_LINES[name])
        assert answers
        assert all(400 <= answer.status < 500 for answer in answers)
        assert all(answer.error["message"] for answer in answers)
        assert not journal.entries()
        await serves_on(llamasup)


async def test_a_target_in_a_proxys_form_asks_only_us(faking: Faking, journal: Journal) -> None:
    async with running({**faking("--fake-echo"), **HASTY}) as llamasup:
        await llamasup.ask("POST", "/tokenize", {})  # who only looks loads nothing
        answers = await answers_to(llamasup, get(b"http://192.0.2.1:1/props?x"))
        assert [answer.status for answer in answers] == [200]
        assert "/props?x" in {entry["target"] for entry in journal.entries("request")}


@pytest.mark.parametrize("coding", [b"chunked", b"CHUNKED", b"\t chunked \t"])
async def test_a_coding_in_odd_clothes_is_read_as_it_is_meant(
    faking: Faking, journal: Journal, coding: bytes
) -> None:
    async with running({**faking("--fake-echo"), **HASTY}) as llamasup:
        asked = post(b"Transfer-Encoding:" + coding, body=b"2\r\n{}\r\n" + LAST_CHUNK)
        answers = await answers_to(llamasup, asked + asked)
        assert [answer.json()["body"] for answer in answers] == ["{}", "{}"]


async def test_a_body_is_never_read_as_a_request(faking: Faking, journal: Journal) -> None:
    async with running({**faking("--fake-echo"), **HASTY}) as llamasup:
        length = b"Content-Length: %d" % len(SMUGGLED)
        answers = await answers_to(llamasup, post(length, body=SMUGGLED))
        assert [answer.status for answer in answers] == [400]  # it is no JSON
        chunk = b"%x\r\n%b\r\n" % (len(SMUGGLED), SMUGGLED)
        answers = await answers_to(llamasup, post(TE, body=chunk + LAST_CHUNK))
        assert [answer.status for answer in answers] == [400]
        assert not journal.entries()


@pytest.mark.parametrize("lacking", [1, 2, 4])
async def test_a_message_without_its_last_bytes_is_waited_for_and_then_refused(
    faking: Faking, journal: Journal, lacking: int
) -> None:
    async with running({**faking("--fake-echo"), **HASTY}) as llamasup:
        for whole in (get(), post(TE, body=b"2\r\n{}\r\n" + LAST_CHUNK)):
            answers = await answers_to(llamasup, whole[:-lacking])
            assert [answer.status for answer in answers] == [408]
        assert not journal.entries()


async def test_no_header_of_a_client_becomes_two_at_the_engine(faking: Faking) -> None:
    odd = [b"X-Request-ID: a\xe9", b"X: \xff\x85\x80", b"Connection: host, content-length"]
    async with running({**faking("--fake-echo"), **HASTY}) as llamasup:
        answers = await answers_to(llamasup, post(*odd, b"Content-Length: 2", body=b"{}"))
        assert [answer.status for answer in answers] == [200]
        names = [name.lower() for name, _ in answers[0].json()["headers"]]
        assert len(names) == len(set(names))


# --- bodies ---

CONVERSATION = "Front._attend"
"""The task whose steps are measured: the test, which makes the bombs, is one too."""

M = 1 << 20
BOMBS = {
    "a list of numbers": b"[" + b"1," * (8 * M) + b"1]",
    "a stream of objects": b'{"stream":[' + b"{}," * (5 * M) + b"{}]}",
    "a name of many megabytes": b'{"model":"' + b"x" * (16 * M) + b'"}',
    "a model that is a long number": b'{"model":' + b"1" * (16 * M) + b"}",
    "brackets": b'{"x":' + b"[[[[]]]]," * (2 * M) + b"1}",
    "deep brackets": b'{"x":' + b"[" * (16 * M),
    "keys": b"{" + b'"a":1,' * (3 * M) + b'"b":2}',
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_bomb_of_json_delays_no_other_client(faking: Faking, bomb: str) -> None:
    """63 MB of them took 2.3 GB, and seconds in which nobody was served."""
    asked = request("POST", "/tokenize", BOMBS[bomb])
    async with running(faking()) as llamasup:
        await serves_on(llamasup)
        with loop_holdups() as holdups:
            async with llamasup.connect() as client:
                with suppress(trio.BrokenResourceError):
                    await client.send(asked)
                assert (await client.reply()).status in (200, 400, 404)
        assert 0 < holdups.longest(CONVERSATION) < 0.02
        await serves_on(llamasup)


async def test_chunks_of_single_bytes_delay_no_other_client(faking: Faking) -> None:
    asked = request("POST", "/tokenize", headers={"Transfer-Encoding": "chunked"})
    async with running(faking()) as llamasup, llamasup.connect() as client:
        with loop_holdups() as holdups:
            with suppress(trio.BrokenResourceError):
                await client.send(asked + b"1\r\na\r\n" * 200_000)
            assert (await client.reply()).status == 400
        assert holdups.longest(CONVERSATION) < 0.02


async def test_an_endless_upload_gets_no_more_than_its_share_and_is_refused(
    faking: Faking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty-four unfinished uploads held 1.1 GB."""
    monkeypatch.setattr("llamasup.front.rooms._PATIENCE", 1.0)
    monkeypatch.setattr("llamasup.front.bodies._LEAST_PIECE", 1 << 60)  # none goes to the disk
    upload = request("POST", "/tokenize", headers={"Content-Length": str(M)})
    refused: list[Reply] = []

    async def attack(client: Client) -> None:
        with suppress(trio.BrokenResourceError):
            await client.send(upload + b'{"content": "' + b"x" * 900_000)
        reply = await client.reply()
        if reply.status == 503:
            refused.append(reply)

    async with (
        running({**faking(), "server.max_buffered": 8 * M}) as llamasup,
        AsyncExitStack() as stack,
        trio.open_nursery() as nursery,
    ):
        for _ in range(24):
            client = await stack.enter_async_context(llamasup.connect())
            nursery.start_soon(attack, client)
        await eventually(lambda: len(refused) >= 19)
        async with Client(llamasup.address, source="127.0.0.2") as modest:
            await modest.send(request("POST", "/tokenize", {"content": "x" * 100_000}))
            assert (await modest.reply()).status == 200
        nursery.cancel_scope.cancel()
    assert {reply.error["code"] for reply in refused} == {"too_much_buffered"}
    assert all(int(reply.headers["retry-after"]) > 0 for reply in refused)


async def test_a_body_that_comes_a_byte_at_a_time_times_out_all_the_same(faking: Faking) -> None:
    """Each byte bought another `body_timeout`."""
    async with (
        running({**faking(), "server.body_timeout": "0.3s"}) as llamasup,
        llamasup.connect() as client,
        trio.open_nursery() as nursery,
    ):
        await client.send(request("POST", "/tokenize", headers={"Content-Length": "60000"}))

        async def dribble() -> None:
            while True:
                await client.send(b" ")
                await trio.sleep(0.01)

        nursery.start_soon(dribble)
        assert (await client.reply()).status == 408
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("size", [1, 600_000, M])
async def test_a_body_that_is_not_read_delays_no_answer(
    faking: Faking, method: str, size: int
) -> None:
    async with running(faking()) as llamasup, llamasup.connect() as client:
        for path in ("/health", "/v1/models", "/api/status", "/modelFits"):
            await client.send(request(method, path, b"x" * size))
            with trio.fail_after(5):
                assert (await client.reply(to_head=method == "HEAD")).status == 200


async def test_what_is_for_no_model_may_have_a_megabyte(faking: Faking) -> None:
    async with running(faking()) as llamasup:
        for method, path in (("GET", "/health"), ("POST", "/config"), ("POST", "/nowhere")):
            reply = await llamasup.ask(method, path, b"x" * (M + 1))
            assert (reply.status, reply.error["code"]) == (413, "body_too_large")
        assert (await llamasup.ask("POST", "/nowhere", b"x" * M)).status == 404


async def test_the_name_of_a_file_names_no_model(faking: Faking, journal: Journal) -> None:
    two = {**faking(name="one"), **faking(name="two")}
    content = FORM.replace(b'name="model"', b'name="file"; filename="a; name=model; x"')
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with running(two) as llamasup:
        reply = await llamasup.ask("POST", "/v1/audio/transcriptions", content, headers)
        assert reply.status == 400
        assert '"one", "two"' in reply.error["message"]
        assert not journal.entries()


@pytest.mark.parametrize(
    "host", ["a b", "a/b", "a@b", '"a"', "<script>", "a:b", "a:1:2", "[::1", "é", "a" * 300]
)
async def test_a_host_that_is_none_reaches_no_engine(
    faking: Faking, journal: Journal, host: str
) -> None:
    asked = b"GET /props HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode()
    async with running(faking("--fake-echo")) as llamasup:
        assert [answer.status for answer in await answers_to(llamasup, asked)] == [400]
        assert not journal.entries()


async def test_what_follows_a_connect_is_no_request(faking: Faking, journal: Journal) -> None:
    for target in (b"host:443", b"/props"):
        async with running(faking("--fake-echo")) as llamasup:
            answers = await answers_to(llamasup, get(target, method=b"CONNECT") + SMUGGLED)
            assert [answer.headers["connection"] for answer in answers] == ["close"]
            assert not journal.entries()


# --- at random ---


def requests_in(data: bytes) -> Iterator[Request]:
    """The requests that a connection reads from `data`."""
    inbox = bytearray(data)
    while (head := take_head(inbox, 1 << 16)) is not None:
        request = parse_head(head)
        request.body = take_content(request.framing, inbox, len(inbox))
        if not request.framing.done:
            return
        yield request


FORWARDED = re.compile(
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ /[\x21-\x7e\x80-\xff]* HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: (?:[\t\x20-\x7e\x80-\xff]*)\r\n)+\r\n"
)
FRAMING_HEADER = re.compile(rb"\r\n(content-length|transfer-encoding): ?([^\r]*)", re.IGNORECASE)


def check_forwarded(request: Request) -> None:
    """What an engine would get is one clean request whose framing is beyond doubt."""
    goal = Router().route(request)
    if not isinstance(goal, ToControl):
        head = request.forwarded(goal.target)
        assert FORWARDED.fullmatch(head), head
        framing = [(name.lower(), value) for name, value in FRAMING_HEADER.findall(head)]
        length = (b"content-length", b"%d" % len(request.body))
        assert framing == ([length] if request.body or request.method == b"POST" else [])


def verdicts(data: bytes) -> Iterator[int]:
    """For each request in `data`: 200 where it would be forwarded, or the error's status."""
    try:
        for request in requests_in(data):
            try:
                check_forwarded(request)
                yield 200
            except ClientError as error:
                yield error.status
    except LlamasupError as error:
        yield error.status


@pytest.mark.parametrize("seed", REQUESTS, ids=range(len(REQUESTS)))
def test_what_the_mutants_come_from_is_valid(seed: bytes) -> None:
    assert set(verdicts(seed)) == {200}


def test_of_a_hundred_thousand_mutants_each_is_refused_or_forwarded_cleanly() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    seen: Counter[int] = Counter()
    for data in islice(mutants(REQUESTS, random.Random(seed)), 100_000):
        try:
            seen.update(verdicts(data))
        except Exception as error:
            error.add_note(f"seed {seed}: {data!r}")
            raise
    assert seen.keys() <= {200, 400, 404, 405, 417, 431, 501}
    # The mutants are close to what is valid: neither all nor none of them are refused.
    assert seen[200] > 10_000
    assert seen[400] > 10_000


async def test_two_thousand_mutants_on_the_network_leave_everything_well(
    faking: Faking, caplog: pytest.LogCaptureFixture
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    waiting = islice(mutants(REQUESTS, random.Random(seed)), 2000)
    seen: Counter[int] = Counter()
    async with running({**faking("--fake-echo"), **HASTY}) as llamasup:
        assert (await llamasup.ask("POST", "/tokenize", {})).status == 200
        at_rest = tasks()

        async def attack() -> None:
            for data in waiting:
                for answer in await answers_to(llamasup, data):
                    assert answer.complete, data
                    seen[answer.status] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(attack)

        assert (await llamasup.ask("POST", "/tokenize", {})).status == 200
        await eventually(lambda: tasks() == at_rest)
    assert seen.keys() <= {200, 503, 501, *range(400, 500)}
    assert seen[200] > 100
    assert seen[400] > 100
    assert "a conversation failed" not in caplog.text


# --- very many at once ---


@contextmanager
def many_descriptors() -> Iterator[int]:
    """As many as this process may have, and llamasup after it; how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, 1 << 16) if hard != resource.RLIM_INFINITY else 1 << 16
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield min(10_000, most - 500)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_ten_thousand_idle_connections_hurt_nobody_and_cost_little(
    faking: Faking, tmp_path: Path
) -> None:
    """Half of them say nothing, half have begun a request; they come from two addresses."""
    settings = {
        **faking(),
        "server.listen": "127.0.0.1:0",
        "server.max_connections": 11_000,
        **{f"folders.{name}": str(tmp_path / name) for name in ("run", "state", "cache")},
    }
    file = tmp_path / "llamasup.toml"
    file.write_text(dump(load(None, {}, settings)))
    with many_descriptors() as number, ExitStack() as stack:
        async with started(file) as program:
            llamasup = await program.listens(tmp_path / "run")
            asks = request("POST", "/v1/chat/completions", chat(3))
            process = psutil.Process(program.process.pid)
            async with Client(llamasup.address, source="127.0.0.2") as modest:
                await modest.send(asks)
                assert (await modest.reply()).text() == " 0 1 2"
                before = process.memory_info().rss
                for nth in range(number):
                    idle = stack.enter_context(trio.socket.socket())
                    await idle.bind((f"127.0.0.{3 + nth % 2}", 0))
                    await idle.connect((llamasup.address.host, llamasup.address.port))
                    if nth % 4 < 2:
                        await idle.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-")
                await modest.send(asks)
                assert (await modest.reply()).text() == " 0 1 2"
                each = (process.memory_info().rss - before) / number
                assert each < 20_000
            async with Client(llamasup.address, source="127.0.0.5") as newcomer:
                await newcomer.send(asks)
                assert (await newcomer.reply()).text() == " 0 1 2"


async def test_readers_that_stop_delay_no_other_client(faking: Faking) -> None:
    """Each holds a slot until `send_timeout`, but nobody's turn on the loop."""
    endless = request("POST", "/v1/chat/completions", chat(1_000_000))
    settings = {"models.fake.parallel": 4, "server.send_timeout": "60s"}
    async with running({**faking(), **settings}) as llamasup, AsyncExitStack() as stack:
        for _ in range(3):
            stuck = await stack.enter_async_context(llamasup.connect())
            await stuck.send(endless)
            await stuck.read_until(b" 0")
        for _ in range(5):
            with trio.fail_after(5):
                reply = await llamasup.ask("POST", "/v1/chat/completions", chat(3))
            assert reply.text() == " 0 1 2"

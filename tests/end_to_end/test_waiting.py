"""What a client sees while it waits for a model or a slot: nothing, or comments till the answer.

When a byte came and when the fake engine did something, the same clock tells.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping

import pytest
import trio
from attrs import frozen

from tests.harness import Client, Journal, chat, counted, eventually, request, running

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "count"}
STREAMS: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [USER], "max_tokens": 5},
    "/v1/completions": {"prompt": "count", "max_tokens": 5},
    "/v1/messages": {"messages": [USER], "max_tokens": 5},
    "/v1/responses": {"input": "count", "max_output_tokens": 5},
    "/completion": {"prompt": "count", "n_predict": 5},
}
COMMENTING = {"server.keepalive_after": "0.1s"}
LOADING = ["--fake-load-seconds", "0.7"]

Fake = Callable[..., Mapping[str, object]]


@frozen
class Event:
    """A server-sent event as client libraries give it to their callers."""

    name: str
    data: str


def parsed(body: bytes) -> list[Event]:
    """As the decoder of the official OpenAI client does it: line by line."""
    events, name, data = [], "", list[str]()
    for line in body.decode().split("\n"):
        if not line:
            if name or data:
                events.append(Event(name, "\n".join(data)))
            name, data = "", []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            else:
                pytest.fail(f"no client knows this line: {line}")
    return events


def comments(body: bytes) -> list[str]:
    return [part for part in body.decode().split("\n\n") if part.startswith(":")]


def without_comments(body: bytes) -> str:
    return "".join(
        f"{part}\n\n" for part in body.decode().split("\n\n") if part and not part.startswith(":")
    )


async def first_byte(client: Client) -> float:
    """When it came."""
    client.unread += await client.read_some()
    return time.monotonic()


async def at_the_engine(journal: Journal, target: str = CHAT) -> float:
    """When the first request for `target` reached it."""

    def requests() -> list[float]:
        return [entry["at"] for entry in journal.entries("request") if entry["target"] == target]

    await eventually(requests)
    return requests()[0]


# --- off, or not for this request ---


async def test_nothing_comes_before_the_answer_unless_that_is_wished(
    faking: Fake, journal: Journal
) -> None:
    async with running(faking(*LOADING)) as llamasup, llamasup.connect() as client:
        await client.send(request("POST", CHAT, chat(5)))
        came = await first_byte(client)
        assert came > await at_the_engine(journal)
        assert comments((await client.reply()).body) == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", CHAT, chat(5, stream=False)),
        ("POST", CHAT, {**chat(5), "stream": None}),
        ("POST", "/v1/embeddings", {"input": "count", "stream": True}),
        ("GET", "/props?autoload=true", None),
    ],
)
async def test_a_client_that_asked_for_no_stream_hears_nothing_before_the_answer(
    faking: Fake, journal: Journal, method: str, path: str, body: object
) -> None:
    able = {"purpose": "embed"} if path == "/v1/embeddings" else {}
    async with (
        running({**faking(*LOADING, **able), **COMMENTING}) as llamasup,
        llamasup.connect() as client,
    ):
        await client.send(request(method, path, body))
        came = await first_byte(client)
        assert came > await at_the_engine(journal, path)
        reply = await client.reply()
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("application/json")


async def test_a_client_that_need_not_wait_gets_only_the_engines_answer(faking: Fake) -> None:
    async with running({**faking("--fake-token-delay", "0.05"), **COMMENTING}) as llamasup:
        await llamasup.ask("GET", "/props?autoload=true")
        reply = await llamasup.ask("POST", CHAT, chat(10))
        assert reply.text() == counted(10)
        assert comments(reply.body) == []


# --- comments, and then the answer ---


@pytest.mark.parametrize("path", STREAMS)
async def test_comments_come_in_time_and_then_the_exact_answer(
    faking: Fake, journal: Journal, path: str
) -> None:
    asking = request(
        "POST", path, STREAMS[path] | {"stream": True}, {"Origin": "http://localhost:3000"}
    )
    async with (
        running({**faking(*LOADING), **COMMENTING}) as llamasup,
        llamasup.connect() as client,
    ):
        sent = time.monotonic()
        await client.send(asking)
        came = await first_byte(client)
        assert not journal.entries("ready")
        assert came - sent >= 0.1
        commented = await client.reply()
        await client.send(asking)
        plain = await client.reply()
    assert commented.complete
    assert commented.status == plain.status == 200
    assert "x-request-id" in commented.headers
    for name in ("content-type", "transfer-encoding", "access-control-allow-origin"):
        assert commented.headers[name] == plain.headers[name]
    assert len(comments(commented.body)) >= 2
    assert ": loading fake" in comments(commented.body)
    assert all(said.startswith((": loading", ": waiting")) for said in comments(commented.body))
    assert without_comments(commented.body).encode() == plain.body
    assert parsed(commented.body) == parsed(plain.body)


async def test_a_client_that_waits_for_a_slot_is_told_so(faking: Fake) -> None:
    config = {**faking("--fake-token-delay", "0.05"), **COMMENTING}
    async with running(config) as llamasup, llamasup.connect() as first:
        await first.send(request("POST", CHAT, chat(20)))
        await first.read_until(b'" 0"')
        reply = await llamasup.ask("POST", CHAT, chat(5))
        assert ": waiting for a slot of fake, you are next" in comments(reply.body)
        assert reply.text() == counted(5)
        assert reply.complete


async def test_http_1_0_gets_them_without_chunks_and_a_clean_end(faking: Fake) -> None:
    asking = request("POST", CHAT, chat(5)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    async with (
        running({**faking(*LOADING), **COMMENTING}) as llamasup,
        llamasup.connect() as client,
    ):
        await client.send(asking)
        reply = await client.reply()
        assert "transfer-encoding" not in reply.headers
        assert reply.headers["connection"] == "close"
        assert comments(reply.body)
        assert reply.text() == counted(5)
        assert reply.complete


# --- what goes wrong after a comment ---

NAMED = ("/v1/messages", "/v1/responses")
"""Where an event has a name."""


@pytest.mark.parametrize("path", STREAMS)
async def test_a_load_that_fails_is_an_event_and_the_connection_lives(
    faking: Fake, path: str
) -> None:
    script = [*LOADING, "--fake-fail-load", "invalid magic characters"]
    async with running({**faking(*script), **COMMENTING}) as llamasup, llamasup.connect() as client:
        await client.send(request("POST", path, STREAMS[path] | {"stream": True}))
        reply = await client.reply()
        assert (reply.status, reply.complete) == (200, True)
        assert comments(reply.body)
        (event,) = parsed(reply.body)
        assert event.name == ("error" if path in NAMED else "")
        assert "invalid magic characters" in event.data
        await client.send(request("GET", "/health"))
        assert (await client.reply()).status == 200


async def test_a_load_that_fails_is_an_event_and_a_clean_end_for_http_1_0(faking: Fake) -> None:
    script = [*LOADING, "--fake-fail-load", "invalid magic characters"]
    asking = request("POST", CHAT, chat(5)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    async with running({**faking(*script), **COMMENTING}) as llamasup, llamasup.connect() as client:
        await client.send(asking)
        reply = await client.reply()
        assert reply.complete
        (event,) = parsed(reply.body)
        assert json.loads(event.data)["error"]["code"] == "model_unavailable"


@pytest.mark.parametrize(
    ("error", "code"),
    [("400 the prompt is too long", "invalid_parameter"), ("500 it broke", "engine_failed")],
)
async def test_an_engine_that_refuses_is_an_event_in_its_own_words(
    faking: Fake, error: str, code: str
) -> None:
    script = [*LOADING, "--fake-error", error]
    async with running({**faking(*script), **COMMENTING}) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(5))
        assert (reply.status, reply.complete) == (200, True)
        (event,) = parsed(reply.body)
        failure = json.loads(event.data)["error"]
        assert failure["message"] == error.partition(" ")[2]
        assert failure["code"] == code


async def test_a_child_that_dies_of_a_request_is_followed_by_one_that_answers_it(
    faking: Fake, journal: Journal
) -> None:
    script = [*LOADING, "--fake-die-at-byte", "-1", "--fake-scripted-lives", "1"]
    async with running({**faking(*script), **COMMENTING}) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(5))
        assert comments(reply.body)
        assert b"HTTP/1.1" not in reply.body
        assert reply.text() == counted(5)
        assert reply.complete
    assert len(journal.entries("died")) == 1


async def test_a_child_that_dies_while_a_request_waits_is_followed_by_one_that_answers(
    faking: Fake, journal: Journal
) -> None:
    config = {**faking("--fake-token-delay", "0.05"), **COMMENTING}
    async with running(config) as llamasup, llamasup.connect() as first:
        await first.send(request("POST", CHAT, chat(100_000)))
        await first.read_until(b'" 0"')
        async with llamasup.connect() as second:
            await second.send(request("POST", CHAT, chat(5)))
            assert await second.read_until(b"\r\n\r\n")
            assert await second.read_until(b": waiting for a slot of fake, you are next\n\n")
            os.kill(journal.entries("started")[0]["pid"], signal.SIGKILL)
            rest = await second.read_until(b"\r\n0\r\n\r\n")
        assert b"HTTP/1.1" not in rest
        assert rest.count(b'"content":"') == 5
        assert b"data: [DONE]" in rest
    assert len(journal.entries("started")) == 2


async def test_an_engine_that_dies_of_every_request_is_an_event_at_last(faking: Fake) -> None:
    script = [*LOADING, "--fake-die-at-byte", "-1", "--fake-death", "crash"]
    async with running({**faking(*script), **COMMENTING}) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(5))
        assert reply.complete
        (event,) = parsed(reply.body)
        assert json.loads(event.data)["error"]["code"] == "request_kills_engine"


# --- a real engine ---


async def test_a_real_engines_answer_follows_its_comments(counting: dict[str, object]) -> None:
    config = counting | {"models.count.parallel": 1} | COMMENTING
    async with running(config) as llamasup, llamasup.connect() as endless:
        await endless.send(request("POST", CHAT, chat(30_000, ignore_eos=True)))
        await endless.read_until(b'" 5"')
        async with llamasup.connect() as client:
            await client.send(request("POST", CHAT, chat(50)))
            begun = await client.read_until(b": waiting for a slot of count, you are next\n\n")
            client.unread[:0] = begun
            endless.leave_by_fin()
            reply = await client.reply()
        assert reply.text() == counted(50)
        assert reply.events()[-1] == "[DONE]"
        assert reply.complete


# --- beside a flood ---


@pytest.mark.parametrize("full", [False, True])
async def test_neither_invented_keys_nor_urgency_nor_a_full_queue_keep_others_waiting(
    faking: Fake, full: bool
) -> None:
    flood, served = 100, list[str]()
    settings = {"pool.max_queue": flood - 1 if full else 256}
    async with (
        running({**faking("--fake-token-delay", "0.01"), **settings}) as llamasup,
        trio.open_nursery() as nursery,
    ):

        async def asks(place: str, **headers: str) -> None:
            stream = await trio.open_tcp_stream(
                llamasup.address.host, llamasup.address.port, local_address=place
            )
            async with stream:
                await stream.send_all(request("POST", CHAT, chat(2), headers))
                answer = b""
                async for data in stream:
                    answer += data
                    if b"[DONE]" in answer or b"queue_full" in answer:
                        break
            served.append(place if b"[DONE]" in answer else "refused")

        for number in range(flood):
            headers = {"Authorization": f"Bearer {number}", "Priority": "u=0"}
            nursery.start_soon(lambda headers=headers: asks("127.0.0.2", **headers))

        async def are_waiting() -> bool:
            return (await llamasup.model_status("fake"))["waiting"] > flood / 2

        await eventually(are_waiting)
        before = len(served)
        await asks("127.0.0.1")
        between = served[before:-1]
        assert served[-1] == "127.0.0.1"
        # One is being answered, one is urgent, and somebody may just have come to its end.
        assert between.count("127.0.0.2") <= 5
        nursery.cancel_scope.cancel()

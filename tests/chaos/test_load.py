"""The judges are judged: an answer that is wrong in any way is never called right."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from llamasup.config.addresses import TcpAddress
from tests.chaos.load import KINDS, Outcome, Request, Verdict

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(*events: object) -> bytes:
    content = b"".join(
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
        for event in events
    )
    return b"%x\r\n%b\r\n" % (len(content), content)


def says(*numbers: int) -> bytes:
    return chunk(*({"choices": [{"delta": {"content": f" {number}"}}]} for number in numbers))


def whole(status: int, document: object) -> bytes:
    content = json.dumps(document).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content)


def chat(text: str) -> object:
    return {"choices": [{"message": {"content": text}}]}


DONE = chunk(b"[DONE]")
ERROR = {"message": "the engine died", "type": "server_error", "code": "engine_lost"}


async def judged(kind: str, reply: bytes, tokens: int = 3) -> Outcome:
    """What a client says that is answered so, before the connection ends."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(reply)
            await stream.send_eof()
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        port = listeners[0].socket.getsockname()[1]
        outcome = await Request(TcpAddress("127.0.0.1", port), "m", KINDS[kind], tokens).run()
        nursery.cancel_scope.cancel()
    return outcome


@pytest.mark.parametrize(
    ("verdict", "reply"),
    [
        (Verdict.RIGHT, HEAD + says(0, 1) + says(2) + DONE + END),
        (Verdict.ERROR, HEAD + says(0, 1) + chunk({"error": ERROR}) + END),
        (Verdict.WRONG, HEAD + says(0, 1, 1) + DONE + END),
        (Verdict.WRONG, HEAD + says(0, 2, 1) + DONE + END),
        (Verdict.WRONG, HEAD + says(0, 1) + DONE + END),
        (Verdict.WRONG, HEAD + says(0, 1, 2, 3) + DONE + END),
        (Verdict.WRONG, HEAD + says(0, 1, 2) + DONE + says(3) + END),
        (Verdict.WRONG, HEAD + says(0) + chunk({"error": ERROR}) + says(1) + END),
        (Verdict.LOST, HEAD + says(0, 1, 2) + END),
        (Verdict.LOST, HEAD + says(0, 1) + END),
        (Verdict.BROKEN, HEAD + says(0, 1, 2) + DONE),
        (Verdict.BROKEN, HEAD + says(0, 1)),
        (Verdict.BROKEN, HEAD),
        (Verdict.BROKEN, HEAD[:20]),
        (Verdict.BROKEN, b""),
        (Verdict.ERROR, whole(503, {"error": ERROR})),
        (Verdict.LOST, whole(502, {"error": ERROR | {"message": ""}})),
        (Verdict.LOST, whole(503, {"error": ERROR | {"message": "Loading model"}})),
        (Verdict.LOST, whole(502, "Bad Gateway")),
    ],
)
async def test_a_stream_is_judged(verdict: Verdict, reply: bytes) -> None:
    outcome = await judged("chat stream", reply)
    assert outcome.verdict is verdict, str(outcome)


@pytest.mark.parametrize(
    ("verdict", "reply"),
    [
        (Verdict.RIGHT, whole(200, chat(" 0 1 2"))),
        (Verdict.WRONG, whole(200, chat(" 0 1"))),
        (Verdict.WRONG, whole(200, chat(" 0 1 2 3"))),
        (Verdict.WRONG, whole(200, {})),
        (Verdict.CUT, whole(200, chat(" 0 1 2"))[:-1]),
        (Verdict.BROKEN, b""),
    ],
)
async def test_a_whole_answer_is_judged(verdict: Verdict, reply: bytes) -> None:
    outcome = await judged("chat", reply)
    assert outcome.verdict is verdict, str(outcome)


async def test_an_answer_that_never_ends_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    kind = KINDS["chat stream"]
    client, silence = trio.testing.memory_stream_pair()
    request = Request(TcpAddress("127.0.0.1", 1), "m", kind, 3, connection=client)
    assert (await request.run()).verdict is Verdict.LOST
    await silence.aclose()

"""Requests are read whole, replies are whole, and thousands of entries let others have turns."""

from __future__ import annotations

import json
import os
from typing import Any

import trio

from llamasup.control.asgi import let_go, live, one_by_one, question, reply

SCOPE = {
    "method": "POST",
    "path": "/a b",
    "raw_path": b"/a%20b",
    "query_string": b"model=x%2By&model=z&empty=",
    "headers": [(b"host", b"h")],
}


async def sent_by(document: object) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await reply(send, 207, document, [(b"x-more", b"1")])
    return sent


async def test_a_body_is_read_to_its_end() -> None:
    messages = iter([{"body": b"ab", "more_body": True}, {"body": b"c"}])

    async def receive() -> Any:
        return next(messages)

    asked = await question(SCOPE, receive)
    assert (asked.body, asked.path, asked.raw_path) == (b"abc", "/a b", b"/a%20b")
    assert (asked.asked("model"), asked.asked("empty"), asked.asked("none")) == ("x+y", "", "")
    assert (asked.header(b"host"), asked.header(b"none")) == (b"h", b"")


async def test_a_reply_is_json_with_its_length() -> None:
    head, body = await sent_by({"a": 1})
    assert head["status"] == 207
    assert dict(head["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(body["body"]),
        b"x-more": b"1",
    }
    assert json.loads(body["body"]) == {"a": 1}


async def test_names_that_are_no_text_can_be_told() -> None:
    odd = os.fsdecode(b"n\xe4me")
    _, body = await sent_by({"name": odd, "more": await one_by_one([1, 2], lambda n: {"n": n})})
    assert json.loads(body["body"]) == {"name": odd, "more": [{"n": 1}, {"n": 2}]}


async def test_others_have_their_turns_between_entries() -> None:
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(1)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await one_by_one(range(100), str)
        nursery.cancel_scope.cancel()
    assert len(turns) >= 90


def test_each_thing_is_let_go_before_the_next_comes() -> None:
    things = [1, 2, 3]
    left = [len(things) for _ in let_go(things)]
    assert left == [2, 1, 0]


async def test_the_lifespan_is_answered_to_its_end() -> None:
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> Any:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await live(receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

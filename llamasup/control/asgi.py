"""Requests and replies in ASGI's words.

Large documents are made in small steps: there may be thousands of models, and other tasks need
their turns.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec
import trio
from attrs import frozen

from llamasup.access.headers import Headers, header

Thing = TypeVar("Thing")

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


@frozen
class Question:
    """One request, read whole."""

    method: str
    path: str
    """The path in plain text: what was percent-encoded is decoded."""

    raw_path: bytes
    """The path as it was sent."""

    query: str
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes:
        """The first header of this name (in lower case), empty if there is none."""
        return header(self.headers, name)

    def asked(self, name: str) -> str:
        """The first value of this name in the query, empty if there is none."""
        return parse_qs(self.query, encoding="utf-8").get(name, [""])[0]


async def question(scope: Scope, receive: Receive) -> Question:
    """Read the request with its whole body: if much of it is left unread, Hypercorn hangs in its
    reply."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return Question(
        scope["method"],
        scope["path"],
        scope["raw_path"],
        scope["query_string"].decode("latin-1"),
        scope["headers"],
        bytes(body),
    )


async def live(receive: Receive, send: Send) -> None:
    """Answer Hypercorn's lifespan messages: it fails without answers, though nothing is to open."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": message["type"] + ".complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def reply(
    send: Send, status: int, document: object, more: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send the document as JSON, or as it is if it is text, with `more` headers."""
    is_text = isinstance(document, str)
    body = document.encode() if isinstance(document, str) else _encoded(document)
    kind = b"text/plain; charset=utf-8" if is_text else b"application/json"
    length = b"%d" % len(body)
    headers = [(b"content-type", kind), (b"content-length", length), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def one_by_one(things: Iterable[Thing], told: Callable[[Thing], object]) -> list[object]:
    """An entry for each thing. Other tasks get a turn after each: there may be thousands."""
    entries: list[object] = []
    for thing in things:
        entries.append(msgspec.Raw(_encoded(told(thing))))
        await trio.lowlevel.checkpoint()
    return entries


def let_go(things: list[Thing]) -> Iterator[Thing]:
    """Yield the things in order, and free each before the next: freeing thousands at once takes
    milliseconds."""
    things.reverse()
    while things:
        yield things.pop()


def _encoded(document: object) -> bytes:
    try:
        return msgspec.json.encode(document)  # ten times faster than json: it may be a megabyte
    except UnicodeEncodeError:  # names of files need not be valid text
        return json.dumps(document, default=lambda raw: json.loads(bytes(raw))).encode()

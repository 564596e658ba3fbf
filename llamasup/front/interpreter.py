"""Puts a request of an API that no engine speaks into an engine's words, and notes what its answer
has to say about itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import trio
from attrs import evolve

from llamasup import threads
from llamasup.apis.ollama import Ollama
from llamasup.apis.translation import Moment, Reply, Residence, Translation
from llamasup.errors import ClientError, Shortage
from llamasup.front.rooms import Room
from llamasup.http.requests import Request, Stored

SMALL: Final = 64 << 10
FEW_PARTS: Final = 250
"""The most that is translated on the event loop, which takes half a millisecond, or 4 ms at worst:
an image of no bytes takes as long as one of thousands."""

MOST_PARTS: Final = 1 << 18
"""Each part takes 14 µs and 300 bytes, however short it is: 64 MiB of `{}` would take 20 GB."""

_AT_A_TIME: Final = 2
_SEARCHED_AT_ONCE: Final = 1 << 20


class Interpreter:
    """One request in an engine's words."""

    def __init__(self, request: Request, meant: Translation | Residence) -> None:
        self.meant = meant
        self._request = request
        self._came = trio.current_time()

    def asked(self, translation: Translation) -> Request:
        """The request as the engine gets it."""
        return evolve(self._request, body=translation.body)

    def reply(self, model: str) -> Reply | None:
        """Who tells this model's answer, if it begins now."""
        meant = self.meant
        return meant.reply(self.moment(model)) if isinstance(meant, Translation) else None

    def moment(self, model: str) -> Moment:
        """What an answer by this model says about itself if it begins now."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return Moment(model, now, trio.current_time() - self._came)


@asynccontextmanager
async def interpreted(
    request: Request, translator: Ollama, path: bytes, memory: Room, holder: str
) -> AsyncIterator[Interpreter]:
    """The request's interpreter. As long as it is used, its words count among the bodies.

    Raises ClientError if the request cannot be understood, OutOfRoom if there is no room for it,
    Shortage if there is no thread, and StorageFailed. If this is cancelled while it translates, a
    thread may go on for a moment.
    """
    size = len(request.body)
    is_stored = not isinstance(request.body, bytes | bytearray)
    amount = 2 * size if is_stored else size
    await memory.take(holder, amount)
    try:
        yield Interpreter(request, await _translated(request.body, translator, path))
    finally:
        memory.give_back(holder, amount)


async def _translated(
    body: bytes | bytearray | Stored, translator: Ollama, path: bytes
) -> Translation | Residence:
    whole = bytes(body) if isinstance(body, bytes | bytearray) else await _read(body)
    parts = await _parts(whole)
    if parts > MOST_PARTS:
        raise ClientError(f"the request has more than {MOST_PARTS} parts: send fewer at once")
    if len(whole) <= SMALL and parts <= FEW_PARTS:
        return translator.translated(path, whole)
    try:
        return await threads.run(translator.translated, path, whole, limiter=_hands)
    except OSError as error:
        raise Shortage(f"the request cannot be translated now: {error.strerror}") from error


_hands = trio.CapacityLimiter(_AT_A_TIME)


async def _parts(body: bytes) -> int:
    """How many parts its JSON has at most: between two of them is a comma. Each comma of a text
    counts, too, but a text with so many has more tokens than models read."""
    parts = 1
    for at in range(0, len(body), _SEARCHED_AT_ONCE):
        if at:
            await trio.lowlevel.checkpoint()
        parts += body.count(b",", at, at + _SEARCHED_AT_ONCE)
    return parts


async def _read(body: Stored) -> bytes:
    whole = bytearray()
    while len(whole) < len(body):
        whole += await body.read(len(whole))
    return bytes(whole)

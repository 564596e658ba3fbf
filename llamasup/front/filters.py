"""Puts the body of a request under the filter of its model, before the request waits for a lease.

Without a filter nothing is done here. A small body is edited at once, in some µs. Of a large one
only the values that rules name are read; what is sent is the old body with those parts replaced. A
large one that a translation has made is searched for them here, in small steps.

What is no JSON object, such as a form with a sound file, has no params that could be edited. If the
rules are only defaults, it is passed on as it is. If a rule counts more than the client's word, a
request for an answer is refused, because such a form would evade the rule.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import msgspec
import trio
from msgspec import Raw

from llamasup.errors import ClientError
from llamasup.front.form_wishes import is_form
from llamasup.front.json_wishes import JsonReader
from llamasup.front.wishes import Member, Wishes
from llamasup.http.requests import Request, Stored
from llamasup.models.params import Filter
from llamasup.pool.work import Work

_SHORT: Final = 64 << 10
_LONGEST_VALUE: Final = 1 << 20
"""Bytes of a value in a large body that a rule may have to read."""

_LONGEST_AT_ONCE: Final = 1 << 20
"""Bytes of a body that is decoded at once, in 3 ms at worst."""

_STEP: Final = 8 << 10
"""Bytes that are searched at once, in 4 ms at worst."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


async def put_under(rules: Filter, request: Request, wishes: Wishes | None, work: Work) -> None:
    """Replace the request's body, if the rules change anything in it.

    `wishes` are those of a large body. Raises ClientError, and StorageFailed for a body that cannot
    be read. If this is cancelled, the body stays as it was.
    """
    body = request.body
    if not body:
        return
    if wishes is not None and wishes.members is not None:
        request.body = await _large(rules, body, wishes.members)
    elif wishes is None and isinstance(body, bytes | bytearray) and _is_object(request, body):
        if len(body) > _LONGEST_AT_ONCE:
            request.body = await _large(rules, body, await _members(body))
            return
        if len(body) > _SHORT:
            await trio.lowlevel.checkpoint()
        request.body = _small(rules, body)
    elif rules.overrules and work is Work.GENERATE:
        raise ClientError(
            "this model has set_params or strip_params, which cannot be applied to this body: send"
            " a JSON object to a path of its API, or ask the operator for a model without them"
        )


def _is_object(request: Request, body: bytes | bytearray) -> bool:
    """Is the body an object? It is known that engines can read it."""
    if is_form(request.header(b"content-type") or b""):
        return False
    return body[:1] == b"{" or body.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"{")


async def _members(body: bytes | bytearray) -> Sequence[Member]:
    reader = JsonReader()
    for at in range(0, len(body), _STEP):
        reader.feed(bytes(body[at : at + _STEP]))
        await trio.lowlevel.checkpoint()
    return reader.end().members or ()


def _small(rules: Filter, body: bytes | bytearray) -> bytes | bytearray:
    document = Raw(body.removeprefix(_BYTE_ORDER_MARK))
    try:
        edited = rules.edited(document)
    except _NOT_JSON as error:
        raise _refusal(error) from error
    return body if edited is document else bytes(edited)


_NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _refusal(error: Exception) -> ClientError:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else error
    return ClientError(f"the body is not valid JSON: {why}")


async def _large(
    rules: Filter, body: bytes | bytearray | Stored, members: Sequence[Member]
) -> bytes | bytearray | Stored:
    """The body with other parts in it where the rules want that."""
    named = {member.name: member for member in members if member.name in rules.rules}
    given = {name: await _value(body, member) for name, member in named.items()}
    try:
        changes = rules.changes(given)
    except _NOT_JSON as error:
        raise _refusal(error) from error
    return Edited(body, list(_parts(members, changes))) if changes else body


async def _value(body: bytes | bytearray | Stored, member: Member) -> Raw:
    """The value of this member, as the client wrote it."""
    if member.end - member.value > _LONGEST_VALUE:
        raise ClientError(f"`{member.name}` is over {_LONGEST_VALUE >> 20} MiB")
    value = bytearray()
    while len(value) < member.end - member.value:
        value += await _piece(body, member.value + len(value), member.end)
    return Raw(value.strip())


_PIECE: Final = 256 << 10


async def _piece(body: bytes | bytearray | Stored, start: int, end: int) -> bytes:
    """Bytes of the body from `start` on, and none from `end` on."""
    if isinstance(body, bytes | bytearray):
        return bytes(body[start : min(end, start + _PIECE)])
    return (await body.read(start))[: end - start]


Part = bytes | range
"""Bytes of ours, or a range of the old body's."""


def _parts(members: Sequence[Member], changes: dict[str, Raw | None]) -> Iterator[Part]:
    """What the new body is made of. A changed member that comes twice is written once."""
    last = {member.name: member for member in members}
    new = {
        name: msgspec.json.encode(name) + b":" + bytes(value)
        for name, value in changes.items()
        if value is not None
    }
    kept: list[Part] = []
    for member in members:
        if member.name not in changes:
            start = member.start
            if kept and isinstance(before := kept[-1], range) and before.stop + 1 == start:
                start = before.start
                kept.pop()
            kept.append(range(start, member.end))
        elif last[member.name] is member and member.name in new:
            kept.append(new.pop(member.name))
    yield b"{"
    for number, part in enumerate([*kept, *new.values()]):
        if number:
            yield b","
        yield part
    yield b"}"


class Edited:
    """A large body in which some parts were replaced. See `Stored`."""

    def __init__(self, old: bytes | bytearray | Stored, parts: Sequence[Part]) -> None:
        self._old = old
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    async def read(self, at: int) -> bytes:
        """See `Stored.read`."""
        number = bisect_right(self._ends, at)
        if number == len(self._parts):
            return b""
        part = self._parts[number]
        within = at - (self._ends[number] - len(part))
        if isinstance(part, bytes):
            return part[within:]
        return await _piece(self._old, part.start + within, part.stop)

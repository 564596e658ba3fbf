"""Is what a client got well-formed, and does a part of an answer look like one?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from llamasup.http.framing import Chunked, FramingError

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD = re.compile(
    rb"HTTP/1\.1 (?P<status>[1-5][0-9][0-9]) [\x20-\x7e]*\r\n"
    rb"(?P<lines>(?:%b: ?[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n" % _TOKEN
)
_LENGTH = re.compile(rb"(?im)^content-length: ?([0-9]{1,15})\r$")
_CODING = re.compile(rb"(?im)^transfer-encoding: ?([^\r]*)\r$")
_FRAMING = re.compile(rb"(?im)^(?:content-length|transfer-encoding):")


class Malformed(Exception):
    """No client should ever get this."""


@frozen
class Answer:
    """One answer, whole or cut."""

    status: int
    whole: bool
    body: bytes


def answers(data: bytes) -> Iterator[Answer]:
    """The answers that make up all that came on a connection. Raises Malformed."""
    while data:
        head = _HEAD.match(data)
        if head is None:
            raise Malformed(f"no head: {data[:200]!r}")
        status, lines = int(head["status"]), head["lines"]
        data = data[head.end() :]
        if status == 100:
            continue
        answer, data = _framed(status, lines, data)
        yield answer


def _framed(status: int, lines: bytes, data: bytes) -> tuple[Answer, bytes]:
    length, coding = _LENGTH.findall(lines), _CODING.findall(lines)
    if len(_FRAMING.findall(lines)) > 1 or len(length) + len(coding) != len(
        _FRAMING.findall(lines)
    ):
        raise Malformed(f"doubtful framing: {lines!r}")
    if coding:
        if coding != [b"chunked"]:
            raise Malformed(f"an odd coding: {lines!r}")
        return _chunked(status, data)
    if length:
        size = int(length[0])
        return Answer(status, len(data) >= size, data[:size]), data[size:]
    if status in (204, 304):
        return Answer(status, True, b""), data
    return Answer(status, True, data), b""  # until the connection's end


def _chunked(status: int, data: bytes) -> tuple[Answer, bytes]:
    payload = bytearray()
    body = Chunked(payload)
    try:
        taken = body.feed(data)
    except FramingError as error:
        raise Malformed(f"bad chunks ({error}): {data[:200]!r}") from None
    return Answer(status, body.done, bytes(payload)), data[taken:]

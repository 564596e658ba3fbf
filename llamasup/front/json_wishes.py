"""Reads the wishes of a body of JSON, at once or in small steps. Pure.

The steps only see where strings and brackets begin and end. So llamasup checks only the structure
of a large body, and leaves other mistakes to the engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import msgspec

from llamasup.config.schema import LONGEST_PARAM
from llamasup.errors import ClientError
from llamasup.front.wishes import LONGEST_NAME, Member, Wishes, checked_name, refuse_long_name


def _refuse(why: str) -> NoReturn:
    raise ClientError(f"the body is not valid JSON: {why}")


class _Raw(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw(b"null")
    stream: msgspec.Raw = msgspec.Raw(b"null")


_decode_object: Callable[[bytes | bytearray | memoryview], _Raw] = msgspec.json.Decoder(_Raw).decode
_decode_anything: Callable[[bytes | bytearray | memoryview], msgspec.Raw] = msgspec.json.Decoder(
    msgspec.Raw
).decode
_decode_string: Callable[[bytes], str] = msgspec.json.Decoder(str).decode

_OPENING = re.compile(rb"(\xef\xbb\xbf)?+[ \t\r\n]*+(.?)", re.DOTALL)
"""A byte order mark, which engines accept; and the first byte that is not blank."""

_LONGEST_RAW_PARAM: Final = 12 * LONGEST_PARAM + 2
"""Bytes of a param's name in JSON: two escapes of six bytes make one character."""

_LONGEST_RAW_NAME: Final = 6 * LONGEST_NAME + 2
"""Bytes of a name in JSON: with its quotes, and with six bytes for one (`\\u0061`)."""


def wishes_of_json(body: bytes | bytearray) -> Wishes:
    """What a small body asks for. Raises ClientError if no engine could read it."""
    opening = _OPENING.match(body)
    assert opening is not None
    document = memoryview(body)[opening.end(1) :] if opening[1] else body
    try:
        if opening[2] == b"{":
            raw = _decode_object(document)
            return _wishes(bytes(raw.model), bytes(raw.stream))
        if opening[2] == b"[":
            _decode_anything(document)
            return Wishes()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse(str(error))
    except RecursionError:
        _refuse("it is nested too deeply")
    _refuse("it is neither an object nor a list")


def _wishes(model: bytes, stream: bytes, members: Sequence[Member] | None = None) -> Wishes:
    return Wishes(_name(model), stream == b"true", members)


def _name(raw: bytes) -> str | None:
    """The model's name from its JSON. The first byte tells which type it has."""
    if raw == b"null":
        return None
    if not raw.startswith(b'"'):
        raise ClientError("the body's `model` is not a string")
    if len(raw) > _LONGEST_RAW_NAME:
        refuse_long_name()
    return checked_name(_string(raw))


def _string(raw: bytes) -> str:
    try:
        return _decode_string(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse(str(error))


_DEEPEST: Final = 1000
_MOST_MEMBERS: Final = 500
_FREE_STEPS: Final = 1 << 18
_BYTES_PER_STEP: Final = 64
"""A large body must not consist of brackets alone: each of them costs a step of a third of a
microsecond. Strings, numbers, and lists and objects without inner ones cost no step."""

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_WITHIN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_BLANK = re.compile(rb"[ \t\r\n\xef\xbb\xbf]*+")
_BETWEEN_MARKS = re.compile(rb'[^"{}\[\],:]*+')
_NO_BRACKETS = rb'(?:[^"{}\[\]]++|' + _STRING + rb")"
_PASSED_OVER = re.compile(
    rb"(?:" + _NO_BRACKETS + rb"|[\[{]" + _NO_BRACKETS + rb"*+[\]}])*+", re.DOTALL
)
"""What is skipped below our keys: strings, numbers, and lists and objects of only these."""

_QUOTE, _BACKSLASH, _COLON, _COMMA = b'"\\:,'
_OPEN, _CLOSE = b"[{", b"]}"


class JsonReader:
    """See `Reader`. Of two members `model` or `stream` the later one counts, as in engines."""

    def __init__(self) -> None:
        self._depth = 0
        self._ours = 1  # the depth of our keys, 0 in a list, which has none
        self._over = False
        self._in_string = False
        self._escaped = False
        self._key: bytes | None = None  # the key whose value is coming
        self._text = bytearray()  # the beginning of this key or value, as written
        self._model = self._stream = b"null"
        self._members: list[Member] = []
        self._read = 0  # bytes of the body that were read before these
        self._start = self._value = 0  # where this member begins, and its value
        self._steps = _FREE_STEPS  # how many more steps may be taken

    def feed(self, data: bytes) -> None:
        """See `Reader.feed`."""
        self._steps += len(data) // _BYTES_PER_STEP
        at = 0
        while at < len(data):
            if self._in_string:
                at = self._read_string(data, at)
            elif self._depth > self._ours:
                at = self._pass_over(data, at)
            elif self._depth:
                at = self._read_member(data, at)
            else:
                at = self._read_outside(data, at)
        self._read += len(data)
        if self._steps < 0:
            raise ClientError("the body's JSON has too many small parts for its size")

    def end(self) -> Wishes:
        """See `Reader.end`."""
        if not self._over:
            _refuse("it is cut off")
        return _wishes(self._model, self._stream, self._members if self._ours else None)

    def _read_outside(self, data: bytes, at: int) -> int:
        at = _end(_BLANK, data, at)
        if at < len(data):
            if self._over:
                _refuse("something follows it")
            if data[at] not in _OPEN:
                _refuse("it is neither an object nor a list")
            self._ours = 1 if data[at] == _OPEN[1] else 0
            self._depth = 1
            self._start = self._read + at + 1
        return at + 1

    def _read_member(self, data: bytes, at: int) -> int:
        stop = _end(_BETWEEN_MARKS, data, at)
        self._note(data[at:stop])
        if stop == len(data):
            return stop
        mark = data[stop]
        if mark == _COLON and self._key is None:
            self._key = self._take_text()
            self._value = self._read + stop + 1
        elif mark == _COMMA and self._key is not None:
            self._end_member(self._read + stop)
        elif mark == _CLOSE[1]:
            self._end_member(self._read + stop)
            self._depth, self._over = 0, True
        elif mark == _QUOTE and not self._text:
            self._note(b'"')
            self._in_string = True
        elif mark in _OPEN and not self._text and self._key is not None:
            self._note(data[stop : stop + 1])
            self._depth += 1
        else:
            _refuse(f'there is a misplaced "{chr(mark)}"')
        return stop + 1

    def _read_string(self, data: bytes, at: int) -> int:
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        stop = data.find(b'"', at)
        if stop < 0:
            stop = len(data)
        if data.find(b"\\", at, stop) >= 0:
            stop = _end(_WITHIN_STRING, data, at)
        if stop < len(data):
            self._in_string = data[stop] != _QUOTE
            self._escaped = self._in_string  # then the last byte is a backslash
            stop += 1
        if self._depth == self._ours:
            self._note(data[start:stop])
        return stop

    def _pass_over(self, data: bytes, at: int) -> int:
        depth, steps, size = self._depth, 0, len(data)
        while depth > self._ours:
            steps += 1
            at = _end(_PASSED_OVER, data, at)
            if at == size:
                break
            mark = data[at]
            at += 1
            if mark == _QUOTE:
                self._in_string = True
                break
            if mark in _CLOSE:
                depth -= 1
            elif depth < _DEEPEST:
                depth += 1
            else:
                _refuse("it is nested too deeply")
        self._depth = depth
        self._over = depth == 0
        self._steps -= steps
        return at

    def _note(self, text: bytes) -> None:
        room = _LONGEST_RAW_NAME + 1 - len(self._text)
        self._text += text[:room] if self._text else text.lstrip()[:room]

    def _take_text(self) -> bytes:
        text = bytes(self._text.rstrip())
        self._text.clear()
        return text

    def _end_member(self, end: int) -> None:
        if len(self._members) == _MOST_MEMBERS:
            raise ClientError(f"the body's JSON has more than {_MOST_MEMBERS} keys at its top")
        key, self._key = self._key, None
        value = self._take_text()
        if key is None:
            if value:
                _refuse("a key has no value")
            return
        if not key.startswith(b'"') or not value:
            _refuse("a key or its value is missing")
        name = _string(key) if len(key) <= _LONGEST_RAW_PARAM else ""
        self._members.append(Member(name, self._start, self._value, end))
        self._start = end + 1
        if name == "model":
            self._model = value
        elif name == "stream":
            self._stream = value


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at)
    assert match is not None
    return match.end()

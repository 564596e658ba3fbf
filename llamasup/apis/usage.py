"""Reads from an answer's text how many tokens it took and why it ended, by its dialect. Pure.

A short answer is decoded. Of a stream, and of a long answer, only the beginning and the end are
there: there the numbers are looked for by their names. Within JSON strings such a name would have
its quotes escaped, so nothing that a model says is taken for a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from llamasup.apis.dialect import Dialect, Layout, Pointer
from llamasup.events import Usage


def usage_of_answer(dialect: Dialect, body: bytes) -> Usage | None:
    """The usage of a whole answer; None if it does not say. Answers in a list are added up."""
    document = _decoded(body)
    if dialect.whole is None or document is None:
        return None
    if not isinstance(document, list):
        return _in_document(dialect.whole, document)
    usages = [usage for answer in document if (usage := _in_document(dialect.whole, answer))]
    if not usages or len(usages) < len(document):
        return None
    tokens = sum(usage.answer_tokens for usage in usages)
    last = usages[-1]
    return Usage(last.prompt_tokens, tokens, last.end_reason, last.cached_tokens)


def usage_of_ends(dialect: Dialect, ends: bytes) -> Usage | None:
    """The usage of an answer of which only the beginning and the end are there; None if they do not
    say. Why it ended is not read."""
    return None if dialect.whole is None else _in_text(dialect.whole, ends)


def usage_of_stream(dialect: Dialect, events: bytes) -> Usage | None:
    """The usage of a stream, from its first and last events; None if they do not say.

    Lines between the events, such as the sizes of chunks, are ignored. For each number the last one
    counts.
    """
    if dialect.streamed is None or (usage := _in_text(dialect.streamed, events)) is None:
        return None
    reason = _last_text(events, dialect.streamed.end_reason)
    return Usage(usage.prompt_tokens, usage.answer_tokens, reason, usage.cached_tokens)


def usage_at_least(request_size: int, tokens: int) -> Usage:
    """What an answer of so many tokens took that does not say it: the prompt is guessed by the size
    of the request's body.

    The guess is low: a body may hold pictures, and nobody should pay for what was not computed.
    """
    prompt = min(request_size // BYTES_OF_A_TOKEN, _MOST_GUESSED)
    return Usage(prompt, tokens, "")


BYTES_OF_A_TOKEN: Final = 4
_MOST_GUESSED: Final = 4096


def _in_document(layout: Layout, document: object) -> Usage | None:
    def number(pointer: Pointer) -> int | None:
        value = _at(document, pointer)
        return value if type(value) is int and 0 <= value <= _MOST_BELIEVED else None

    reason = _at(document, layout.end_reason or ())
    return _usage(layout, number, reason if isinstance(reason, str) else "")


def _in_text(layout: Layout, text: bytes) -> Usage | None:
    return _usage(layout, lambda pointer: _last_number(text, pointer), "")


def _usage(layout: Layout, number: Callable[[Pointer], int | None], reason: str) -> Usage | None:
    """What the layout means, where `number` says what stands at a pointer's end."""
    prompt = [number(pointer) for pointer in layout.prompt_tokens]
    answer = number(layout.answer_tokens) if layout.answer_tokens else None
    if answer is None and (layout.answer_tokens or prompt == [None]):
        return _usage(layout.or_else, number, reason) if layout.or_else else None
    cached = 0
    for pointer in layout.cached_tokens:
        if (tokens := number(pointer)) is not None:
            cached = tokens
            break
    return Usage(sum(filter(None, prompt)), answer or 0, reason, cached)


def _last_number(text: bytes, pointer: Pointer) -> int | None:
    """The last number in the text that has the name where this points."""
    name = b'"%b"' % str(pointer[-1]).encode()
    at = text.rfind(name)
    while at >= 0:
        found = _NUMBER.match(text, at + len(name))
        if found and (tokens := int(found[1])) <= _MOST_BELIEVED:
            return tokens
        at = text.rfind(name, 0, at)
    return None


_NUMBER: Final = re.compile(rb"\s*+:\s*+(\d{1,15})(?![\d.eE])")

_MOST_BELIEVED: Final = 100_000_000
"""Tokens. No context is so large: a server elsewhere that says more would lock out a key."""


def _last_text(events: bytes, pointer: Pointer | None) -> str:
    """What the last event that has a text where this points says there."""
    if pointer is None:
        return ""
    for document in _documents_backwards(events, b'"%b"' % str(pointer[-1]).encode()):
        if isinstance(value := _at(document, pointer), str):
            return value
    return ""


def _documents_backwards(events: bytes, name: bytes) -> Iterator[object]:
    """The events that mention the name, the last one first. Most have nothing more to say there, so
    only a few are looked at."""
    end = len(events)
    for _ in range(_MOST_LOOKED_AT):
        if (at := events.rfind(name, 0, end)) < 0:
            return
        end = events.rfind(b"\n", 0, at) + 1
        line = events[end:].partition(b"\n")[0]
        if line.startswith(b"data:"):
            yield _decoded(line[len(b"data:") :])


_MOST_LOOKED_AT: Final = 8


def _at(document: Any, pointer: Iterable[str | int]) -> object:
    """The value where the pointer leads; None if there is none."""
    for step in pointer:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def _decoded(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

"""Reads from an answer's text how many tokens it took and why it ended, by its dialect. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from llamasup.apis.dialect import Dialect, Layout, Way
from llamasup.events import Usage


def usage_of_answer(dialect: Dialect, body: bytes) -> Usage | None:
    """The usage of a whole answer; None if it does not say. Answers in a list are added up."""
    document = _decoded(body)
    if dialect.whole is None or document is None:
        return None
    answers = document if isinstance(document, list) else [document]
    usages = [usage for answer in answers if (usage := _read(dialect.whole, [answer]))]
    if not usages or len(usages) < len(answers):
        return None
    tokens = sum(usage.answer_tokens for usage in usages)
    return Usage(usages[-1].prompt_tokens, tokens, usages[-1].end_reason)


def usage_of_stream(dialect: Dialect, events: bytes) -> Usage | None:
    """The usage of a stream, from its first and last events; None if they do not say.

    Lines between the events, such as the sizes of chunks, are ignored.
    """
    return None if dialect.streamed is None else _read(dialect.streamed, list(_documents(events)))


def _documents(events: bytes) -> Iterator[object]:
    for line in events.split(b"\n"):
        if line.startswith(b"data:"):
            yield _decoded(line[len(b"data:") :])


def _decoded(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _read(layout: Layout, documents: list[object]) -> Usage | None:
    """The usage in these documents. For each number the last one counts."""
    prompt = [_last(_numbers(documents, way)) for way in layout.prompt_tokens]
    answer = _last(_numbers(documents, layout.answer_tokens))
    if answer is None:
        return None
    reason = _last(hit for hit in _hits(documents, layout.end_reason) if isinstance(hit, str))
    return Usage(sum(tokens or 0 for tokens in prompt), answer, reason or "")


def _numbers(documents: Iterable[object], way: Way) -> Iterator[int]:
    return (hit for hit in _hits(documents, way) if isinstance(hit, int))


def _hits(documents: Iterable[object], way: Way) -> Iterator[object]:
    """The value at the end of the way, in each document that has it."""
    for document in documents:
        found: Any = document
        for step in way:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                break
        else:
            yield found


def _last(hits: Iterable[Any]) -> Any:
    last = None
    for last in hits:  # noqa: B007
        pass
    return last

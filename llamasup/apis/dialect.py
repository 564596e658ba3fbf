"""What a dialect is: how one API names its paths, streams, reports errors and counts tokens. Pure.

Each API is a class of its own, in a file of its own. `dialects` knows them all.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from attrs import frozen

from llamasup.errors import LlamasupError

Way = tuple[str | int, ...]
"""Where something stands in JSON: keys and indices, from the outside in."""


@frozen
class Layout:
    """Where an answer says how much it took and why it ended."""

    prompt_tokens: tuple[Way, ...]
    """How many tokens the prompt has: the sum of these. One that is missing counts nothing."""

    answer_tokens: Way
    """How many tokens the answer has. Of several answers, llama-server counts the tokens of one."""

    end_reason: Way


class Dialect(ABC):
    """How one API speaks. Paths are without a prefix."""

    stream_paths: ClassVar[tuple[bytes, ...]] = ()
    """The model writes an answer; as a stream, if the request's body says `"stream": true`."""

    work_paths: ClassVar[tuple[bytes, ...]] = ()
    """The model has to work for the answer, which is never a stream."""

    question_paths: ClassVar[tuple[bytes, ...]] = ()
    """Something is asked or set (POST) for which the model need not work."""

    view_paths: ClassVar[tuple[bytes, ...]] = ()
    """Something is looked at (GET)."""

    several: ClassVar[tuple[str, ...]] = ()
    """The members of a request's body by which it may ask for several answers at once: a number,
    or a list with a prompt for each."""

    whole: ClassVar[Layout | None] = None
    """Of an answer that is no stream."""

    streamed: ClassVar[Layout | None] = None
    """Of the events of a stream. Each part may stand in another event, and the last one counts."""

    last_events: ClassVar[tuple[bytes | Mapping[str, object], ...]] = ()
    """With which event a stream ends, or with which each of its answers ends: an event's data, or
    some members of its JSON."""

    def __init__(self) -> None:
        self._paths = (
            *(*self.stream_paths, *self.work_paths),
            *(*self.question_paths, *self.view_paths),
        )

    def speaks_at(self, path: bytes) -> bool:
        """Is this one of its paths, whatever prefix it has?"""
        return path.endswith(self._paths)

    @abstractmethod
    def error_body(self, error: LlamasupError) -> object:
        """The error as the JSON of a reply."""

    def error_event(self, error: LlamasupError) -> bytes:
        """The error as an event of a stream, which is the last one."""
        return server_sent_event(self.error_body(error))

    def corrected(self, status: int, body: bytes) -> bytes | None:
        """The engine's error `body`, where clients of this API need it otherwise; else None."""
        return None

    def passes_the_time(self, document: object) -> bool:
        """Is an event with this JSON there for waiting clients only, and no part of an answer?"""
        return False

    def only_opens(self, document: object) -> bool:
        """Does an event with this JSON only open an answer, and hold no word of it?"""
        return False


def server_sent_event(document: object, name: bytes = b"") -> bytes:
    """An event with this JSON."""
    event = b"event: %b\n" % name if name else b""
    return event + b"data: " + json.dumps(document).encode() + b"\n\n"

"""What a dialect is: how one API names its paths, streams, reports errors and counts tokens. Pure.

Each API is a class of its own, in a file of its own. `dialects` knows them all.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Final

from attrs import frozen

from llamasup.errors import LlamasupError

Pointer = tuple[str | int, ...]
"""Where a value stands in JSON: keys and indices, from the outside in."""


@frozen
class Layout:
    """Where an answer says how many tokens it took and why it ended."""

    prompt_tokens: tuple[Pointer, ...]
    """How many tokens the prompt has: the sum of these numbers. A missing one counts as 0."""

    answer_tokens: Pointer | None
    """How many tokens the answer has; None if it never has any. If there are several answers,
    llama-server counts only one."""

    end_reason: Pointer | None = None
    cached_tokens: tuple[Pointer, ...] = ()
    """How many tokens of the prompt the engine remembered: the first of these numbers that there
    is."""

    or_else: Layout | None = None
    """Where to look if there are no numbers here."""


TIMINGS: Final = Layout(
    prompt_tokens=(("timings", "prompt_n"), ("timings", "cache_n")),
    answer_tokens=("timings", "predicted_n"),
    cached_tokens=(("timings", "cache_n"),),
)
"""What llama-server adds to its answers, and to the last event of its streams, in any API: streams
of chats have no other numbers, unless the client asks for them."""


class Dialect(ABC):
    """The rules of one API. Paths are written without a prefix, as engines know them."""

    about: ClassVar[str] = ""
    """The API's name, for those who read the published table of routes."""

    stream_paths: ClassVar[tuple[bytes, ...]] = ()
    """Here the model writes an answer, as a stream if the request's body says `"stream": true`."""

    work_paths: ClassVar[tuple[bytes, ...]] = ()
    """Here the model works for an answer that is never a stream."""

    question_paths: ClassVar[tuple[bytes, ...]] = ()
    """Here something is asked or set (POST), and the model need not work for it."""

    view_paths: ClassVar[tuple[bytes, ...]] = ()
    """Here something is looked at (GET)."""

    own_paths: ClassVar[tuple[bytes, ...]] = ()
    """Here llamasup itself answers, and no engine."""

    several: ClassVar[tuple[str, ...]] = ()
    """Members of a request's body that ask for several answers at once: a number of answers, or a
    list with a prompt for each."""

    whole: ClassVar[Layout | None] = None
    """The layout of an answer that is no stream."""

    streamed: ClassVar[Layout | None] = None
    """The layout of a stream's events. Each part may stand in another event; the last one
    counts."""

    last_events: ClassVar[tuple[bytes | Mapping[str, object], ...]] = ()
    """The event that ends a stream, or each of its answers: the event's data, or some members of
    its JSON."""

    stream_type: ClassVar[bytes] = b"text/event-stream"
    """The Content-Type of a stream."""

    def __init__(self) -> None:
        self.paths = (
            *(*self.stream_paths, *self.work_paths),
            *(*self.question_paths, *self.view_paths, *self.own_paths),
        )
        """All of its paths, without a prefix."""

    def speaks_at(self, path: bytes) -> bool:
        """Is this one of its paths, whatever prefix it has?"""
        return path.endswith(self.paths)

    @abstractmethod
    def error_body(self, error: LlamasupError) -> object:
        """The error as the JSON of a reply."""

    def error_event(self, error: LlamasupError) -> bytes:
        """The error as an event of a stream: the last event."""
        return server_sent_event(self.error_body(error))

    def comment(self, words: bytes) -> bytes:
        """What a client that waits for a stream may be sent before it, and ignores."""
        return b": %b\n\n" % words

    def corrected(self, status: int, body: bytes) -> bytes | None:
        """The engine's error `body` in the form that clients of this API need; None if it has
        it."""
        return None

    def passes_the_time(self, document: object) -> bool:
        """Is an event with this JSON only for waiting clients, and no part of an answer?"""
        return False

    def only_opens(self, document: object) -> bool:
        """Does an event with this JSON only open an answer, without a word of it?"""
        return False


def server_sent_event(document: object, name: bytes = b"") -> bytes:
    """An event with this JSON."""
    event = b"event: %b\n" % name if name else b""
    return event + b"data: " + json.dumps(document).encode() + b"\n\n"

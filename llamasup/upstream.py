"""What can answer a request: a leased child, or control, as far as the relay has to know it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import Final
from urllib.parse import quote

from attrs import frozen

from llamasup import __version__
from llamasup.http.requests import Request
from llamasup.http.wire import Wire


class Verdict(Enum):
    """What an error that an upstream answers with says about the upstream."""

    ITS_OWN = "its_own"
    """Nothing: the error is about the request, and is passed on to its client."""

    TOO_LARGE = "too_large"
    """Nothing: the request's body was too large for the upstream to take in."""

    OUT_OF_MEMORY = "out_of_memory"
    """The upstream's memory ran out: a smaller rung may hold."""

    NOT_HERE = "not_here"
    """Another upstream may answer the request: this one loads, ends, or has no room."""


_PLAIN: Final = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
"""What may stand in a header as it is, beside letters, digits and what is always safe."""


@frozen
class Signature:
    """Header lines that say who has answered. They are made once for each child: 4 µs."""

    lines: bytes
    olla: bytes
    """The same under the names that clients of Olla know."""

    @staticmethod
    def of(model: str, instance: str, kind: str = "llamacpp") -> Signature:
        """The signature of an instance that serves this model."""
        who = in_header(model), in_header(instance)
        return Signature(
            b"X-Llamasup-Model: %b\r\nX-Llamasup-Instance: %b\r\n" % who
            + b"Via: 1.1 llamasup (%b)" % __version__.encode(),
            b"X-Olla-Model: %b\r\nX-Olla-Endpoint: %b\r\n" % who
            + b"X-Olla-Backend-Type: %b" % in_header(kind),
        )


def in_header(name: str) -> bytes:
    """The name as a header can hold it: names of files may be any bytes."""
    return quote(name, safe=_PLAIN, errors="surrogateescape").encode()


class Upstream(ABC):
    """Answers one request, for the relay."""

    @property
    def signature(self) -> Signature | None:
        """Who answers, if that is a model's instance."""
        return None

    @abstractmethod
    def __str__(self) -> str:
        """The upstream's name in messages to clients."""

    @abstractmethod
    async def connect(self) -> Wire:
        """A connection for one request. Raises OSError; if cancelled, it leaves nothing open."""

    async def dressed(self, request: Request) -> Request:
        """The request as the upstream has to get it. Raises a LlamasupError if that cannot be."""
        return request

    def head_for(self, request: Request, target: bytes) -> bytes:
        """The head with which the request is sent there."""
        return request.forwarded(target)

    def judge(self, status: int, message: str, size: int) -> Verdict:
        """What an error with this message means, for a request with a body of `size` bytes."""
        return Verdict.ITS_OWN

    async def survived(self) -> bool:
        """Does the upstream still live, after it closed a connection without an answer?"""
        return False

    def progressed(self) -> None:  # noqa: B027 - most upstreams ignore it
        """Another part of the answer came."""

    def blocked_by_client(self) -> AbstractContextManager[None]:
        """A block in which the client takes no data, so the upstream is not to blame for
        silence."""
        return nullcontext()

    def note_out_of_memory(self, words: str) -> bool:
        """The upstream said in `words` that memory ran out. True if a smaller one will follow."""
        return False

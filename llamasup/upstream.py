"""What can answer a request: a leased child, or control, as far as the relay has to know it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from enum import Enum

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


class Upstream(ABC):
    """Answers one request, for the relay."""

    @abstractmethod
    def __str__(self) -> str:
        """The upstream's name in messages to clients."""

    @abstractmethod
    async def connect(self) -> Wire:
        """A connection for one request. Raises OSError; if cancelled, it leaves nothing open."""

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

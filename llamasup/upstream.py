"""What can answer a request: a leased child, or control. The relay knows no more of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from enum import Enum

from llamasup.http.requests import Request
from llamasup.http.wire import Wire


class Verdict(Enum):
    """What an upstream's error tells about the upstream."""

    ITS_OWN = "its_own"
    """Nothing: it is the request's affair, and its client is to read it."""

    TOO_LARGE = "too_large"
    """Nothing: the request alone was more than the upstream could take in."""

    OUT_OF_MEMORY = "out_of_memory"
    """Its memory ran out: a smaller rung may hold."""


class Upstream(ABC):
    """What the relay needs to have one request answered."""

    @abstractmethod
    def __str__(self) -> str:
        """What a message to a client calls it."""

    @abstractmethod
    async def connect(self) -> Wire:
        """A connection for one request. Raises OSError; cancelled, it leaves nothing open."""

    def dressed(self, request: Request, target: bytes) -> bytes:
        """The head with which the request is sent there."""
        return request.forwarded(target)

    def judge(self, status: int, message: str, size: int) -> Verdict:
        """What an error with this message means, for a request with a body of `size` bytes."""
        return Verdict.ITS_OWN

    async def survived(self) -> bool:
        """Is it still well, now that it has closed a connection without a word?"""
        return False

    def progressed(self) -> None:  # noqa: B027 - most need not know
        """Something of its answer came."""

    def held_up(self) -> AbstractContextManager[None]:
        """For as long as the client takes nothing more: the upstream is not to blame."""
        return nullcontext()

    def out_of_memory(self, words: str) -> bool:
        """It says so. True if it makes room for one that needs less."""
        return False

"""What every lease can do, whether it is on a child of ours or on an instance elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from llamasup.errors import LlamasupError
from llamasup.upstream import Upstream


class Lease(Upstream):
    """One request's permission to use one upstream, held within `async with`."""

    @abstractmethod
    def outlook(self) -> str:
        """What the request waits for, in words for its client."""

    @abstractmethod
    def broke_off(self) -> None:
        """The upstream closed its connection in the middle of an answer, or before it."""

    @abstractmethod
    async def outcome(self) -> Callable[[], bool]:
        """After the lease: what the upstream's loss means for the request.

        The function that is returned says whether the request is known not to have caused it.
        Raises a LlamasupError if the request must not be sent again.
        """

    @abstractmethod
    def exhausted(self, words: str) -> LlamasupError:
        """The error for a request for which memory ran out everywhere."""

    @abstractmethod
    async def __aenter__(self) -> Lease:
        """Wait for the upstream. If this is cancelled, nothing is held."""

    @abstractmethod
    async def __aexit__(self, *error: object) -> None:
        """Give back what is held."""

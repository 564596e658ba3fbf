"""What one request's body may cost: how large it is, how slowly it comes, in how many chunks."""

from __future__ import annotations

from typing import Final

from llamasup.config.schema import Seconds
from llamasup.errors import BodyTooLarge, MalformedRequest
from llamasup.http.framing import Body, Chunked, FramingError

LONGEST_ELSEWHERE: Final = 1 << 20
"""For a body that is not for a model, such as a configuration."""

_LEAST_RATE: Final = 16 << 10
"""Bytes a second, on average. An upload holds memory and a connection until it is complete."""

_FREE_CHUNKS: Final = 1 << 14
_BYTES_PER_CHUNK: Final = 64
"""A client may send chunks of single bytes, but not megabytes of them: each takes a microsecond."""


class BodyLimits:
    """The limits of one body. `now` and `began` are readings of one clock."""

    def __init__(self, longest: int, key: str, timeout: Seconds, began: float) -> None:
        self._longest = longest
        self._key = key
        self._timeout = timeout
        self._began = began

    def check(self, size: int) -> None:
        """Raise BodyTooLarge if a body must not have this size."""
        if size > self._longest:
            raise BodyTooLarge(f"the body is over {self._longest} bytes ({self._key}): send less")

    def extend(self, seconds: float) -> None:
        """Allow the client more time: for so many seconds we did not read, so it could not send."""
        self._began += seconds

    def deadline(self, received: int, now: float) -> float:
        """The time by which more has to come, after `received` bytes."""
        on_the_whole = self._began + self._timeout + received / _LEAST_RATE
        return min(now + self._timeout, on_the_whole)


def take_content(framing: Body, inbox: bytearray, most: int) -> bytes:
    """Take what belongs to the body off the front of `inbox`, and return it without its framing.

    Raises MalformedRequest.
    """
    data = bytes(inbox[:most])
    try:
        taken = framing.feed(data)
    except FramingError as error:
        raise MalformedRequest(f"the body is badly framed: {error}") from None
    del inbox[:taken]
    if not isinstance(framing, Chunked) or framing.payload is None:
        return data[:taken]
    content = bytes(framing.payload)
    framing.payload.clear()
    return content


def check_chunks(framing: Body, size: int) -> None:
    """Raise MalformedRequest if a body of this size comes in far too many chunks."""
    if isinstance(framing, Chunked) and framing.chunks > _FREE_CHUNKS + size // _BYTES_PER_CHUNK:
        raise MalformedRequest("the body's chunks are too small for so many: send larger ones")

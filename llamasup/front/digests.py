"""By what a request is known again that has ended an engine: the digest of all that engines see."""

from __future__ import annotations

from hashlib import sha256

from llamasup import threads
from llamasup.front.requests import Request

_AT_ONCE = 1 << 20
"""Bytes that are digested on the loop: in half a millisecond."""


class Digest:
    """That of one request, made when it is first asked for."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._made: bytes | None = None

    async def __call__(self) -> bytes:
        """The digest. Raises OSError, a shortage, if it takes a thread and there is none."""
        if self._made is None:
            if len(self._request.body) <= _AT_ONCE:
                self._made = _digest(self._request)
            else:
                self._made = await threads.run(_digest, self._request)
        return self._made


def _digest(request: Request) -> bytes:
    digest = sha256(b"%b %b\n" % (request.method, request.target))
    digest.update(request.body)
    return digest.digest()

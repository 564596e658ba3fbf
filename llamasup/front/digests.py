"""Digests of all that an engine sees of a request: they identify requests that ended an engine."""

from __future__ import annotations

import errno
from hashlib import sha256

from llamasup import threads
from llamasup.errors import LlamasupError
from llamasup.http.requests import Request, Stored

_AT_ONCE = 1 << 20
"""The most bytes that are digested on the event loop: that takes half a millisecond."""


class Digest:
    """The digest of one request, made when it is first needed."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._made: bytes | None = None

    async def __call__(self) -> bytes:
        """The digest. Raises OSError if there is no thread for it, or the body cannot be read."""
        if self._made is None:
            self._made = await _digest(self._request)
        return self._made


async def _digest(request: Request) -> bytes:
    body = request.body
    digest = sha256(b"%b %b\n" % (request.method, request.target))
    if not isinstance(body, bytes | bytearray):
        at = 0
        while at < len(body):
            piece = await _read(body, at)
            digest.update(piece)
            at += len(piece)
    elif len(body) <= _AT_ONCE:
        digest.update(body)
    else:
        await threads.run(digest.update, body)
    return digest.digest()


async def _read(body: Stored, at: int) -> bytes:
    try:
        return await body.read(at)
    except LlamasupError as error:
        raise OSError(errno.EIO, str(error)) from error

"""The prefix of a conversation, as a digest: later turns of it begin with the same one. Pure.

An engine that has answered the earlier turns has their tokens in its cache. The digest covers what
comes before the first answer: all messages up to the first one of the user. Without messages it
covers the first part of the prompt.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec

LONGEST: Final = 1 << 20
"""Bytes of a body. Reading a larger one would hold the loop for too long."""

_PART: Final = 1024


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"")


class _Body(msgspec.Struct):
    messages: list[msgspec.Raw] = []
    system: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(_Body).decode
_message = msgspec.json.Decoder(_Message).decode


def prefix_of(body: object) -> bytes:
    """The digest, or b"" where there is nothing to go by."""
    if not isinstance(body, bytes | bytearray) or not 0 < len(body) <= LONGEST:
        return b""
    try:
        found = _decode(body)
        digest = blake2b(found.system, digest_size=8)
        for raw in found.messages:
            message = _message(raw)
            digest.update(message.content)
            if message.role == "user":
                break
    except msgspec.MsgspecError:
        return b""
    if not found.messages:
        text = bytes(found.prompt) or bytes(found.input)
        if not text:
            return b""
        digest.update(text[:_PART])
    return digest.digest()

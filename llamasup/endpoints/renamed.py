"""A request's body with another model's name in it: what an instance elsewhere calls the model.

All other members stay as the client wrote them, byte for byte and in order. Pure.
"""

from __future__ import annotations

import msgspec

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def renamed(body: bytes | bytearray, model: str) -> bytes | None:
    """The body with this name as its `model`; None if it is no JSON object that names one."""
    try:
        members = _decode(body)
    except msgspec.MsgspecError:
        return None
    if "model" not in members:
        return None
    members["model"] = msgspec.Raw(_encode(model))
    return _encode(members)


def name_in(body: bytes | bytearray) -> str | None:
    """The model that the body names."""
    try:
        return _named(body).model
    except msgspec.MsgspecError:
        return None


class _Named(msgspec.Struct):
    model: str | None = None


_named = msgspec.json.Decoder(_Named).decode

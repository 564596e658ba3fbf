"""What a client is told that went wrong, in the form of its own API: as a reply, or as an event."""

from __future__ import annotations

import json
from typing import Final

import msgspec

from llamasup.errors import ClientError, LlamasupError


def document(path: bytes, error: LlamasupError) -> object:
    """The error as every client of the API at `path` reads one."""
    message = str(error)
    if path.endswith(_ANTHROPIC):
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    if _is_native(path):
        # llama.cpp's own API has numbers for codes; ours stands beside it.
        kind = _NATIVE_TYPES.get(error.status, error.type)
        return {
            "error": {
                "code": error.status,
                "message": message,
                "type": kind,
                "reason": error.code,
            }
        }
    return {"error": {"message": message, "type": error.type, "code": error.code}}


def apology(path: bytes, error: LlamasupError) -> bytes:
    """A server-sent event that every client of the API at `path` takes for an error."""
    if path.endswith(b"/messages"):
        return _event(document(path, error), b"event: error\n")
    if path.endswith(b"/responses"):
        openai = {"type": "error", "code": error.code, "message": str(error), "param": None}
        return _event(openai, b"event: error\n")
    return _event(document(path, error))


def named(path: bytes, status: int, body: bytes) -> bytes | None:
    """A bad answer of the engine's with a code that clients of OpenAI's API read as one.

    llama-server has the status there once more, as a number. None where that is not so, or where
    the API has it so: then the answer is passed on as it is.
    """
    if status != ClientError.status or path.endswith(_ANTHROPIC) or _is_native(path):
        return None
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    match answer:
        case {"error": {"code": str()}}:
            return None
        case {"error": {"message": str()} as error}:
            named = {**error, "code": ClientError.code}
            return msgspec.json.encode({**answer, "error": named})
    return None


def _is_native(path: bytes) -> bool:
    """Is this llama.cpp's own API, whatever prefix it has?"""
    if path.endswith(b"/completions"):
        return not path.endswith((b"/v1/completions", b"/chat/completions"))
    return path.endswith(_NATIVE) or b"/slots/" in path


_ANTHROPIC: Final = (b"/v1/messages", b"/v1/messages/count_tokens")
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

_NATIVE: Final = (
    *(b"/completion", b"/infill", b"/predict", b"/embedding"),
    *(b"/tokenize", b"/detokenize", b"/apply-template"),
    *(b"/props", b"/slots", b"/metrics", b"/lora-adapters"),
)
_NATIVE_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def _event(content: object, name: bytes = b"") -> bytes:
    return name + b"data: " + json.dumps(content).encode() + b"\n\n"

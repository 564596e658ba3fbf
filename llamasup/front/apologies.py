"""What a client is told whose stream cannot go on: an error event in the form of its own API."""

from __future__ import annotations

import json

from llamasup.errors import LlamasupError


def apology(path: bytes, error: LlamasupError) -> bytes:
    """A server-sent event that every client of the API at `path` takes for an error."""
    message = str(error)
    if path.endswith(b"/messages"):
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
        anthropic = {"type": "error", "error": {"type": kind, "message": message}}
        return _event(anthropic, b"event: error\n")
    if path.endswith(b"/responses"):
        openai = {"type": "error", "code": error.code, "message": message, "param": None}
        return _event(openai, b"event: error\n")
    form = {"message": message, "type": error.type, "code": error.code}
    if b"/v1/" not in path and b"/chat/" not in path:
        # llama.cpp's own API has numbers for codes.
        return _event({"error": {**form, "code": error.status}})
    return _event({"error": form})


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _event(document: object, name: bytes = b"") -> bytes:
    return name + b"data: " + json.dumps(document).encode() + b"\n\n"

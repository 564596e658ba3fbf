"""What a client is told when its stream breaks off: an error event in the form of its own API."""

from __future__ import annotations

import json

from llamasup.errors import LlamasupError


def apology(path: bytes, error: LlamasupError) -> bytes:
    """A server-sent event that every client of the API at `path` takes for an error."""
    message = str(error)
    if path.endswith(b"/messages"):
        anthropic = {"type": "error", "error": {"type": "api_error", "message": message}}
        return _event(anthropic, b"event: error\n")
    if path.endswith(b"/responses"):
        openai = {"type": "error", "code": error.code, "message": message, "param": None}
        return _event(openai, b"event: error\n")
    form = {"message": message, "type": error.type, "code": error.code}
    if not path.startswith(b"/v1/") and b"/chat/" not in path:
        # llama.cpp's own API has numbers for codes.
        return _event({"error": {**form, "code": error.status}})
    return _event({"error": form})


def _event(document: object, name: bytes = b"") -> bytes:
    return name + b"data: " + json.dumps(document).encode() + b"\n\n"

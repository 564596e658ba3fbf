"""Requests in Ollama's API, and the answers to them, as tests write them."""

from __future__ import annotations

import json
from typing import Any

from llamasup.apis.ollama import Ollama
from llamasup.apis.translation import Moment, Reply, Residence, Translation

NOW = Moment("count", "2026-01-01T00:00:00Z", waited=0.5)
OPENING = {"model": "count", "created_at": "2026-01-01T00:00:00Z"}


def translation(dialect: Ollama, path: bytes, asked: object) -> Translation:
    """The translation of this request."""
    meant = dialect.translated(path, json.dumps(asked).encode())
    assert isinstance(meant, Translation)
    return meant


def residence(dialect: Ollama, path: bytes, asked: object) -> tuple[bool, Any]:
    """Whether this request loads the model, and its answer."""
    meant = dialect.translated(path, json.dumps(asked).encode())
    assert isinstance(meant, Residence)
    return meant.loads, json.loads(meant.document(NOW))


def lines(reply: Reply, events: bytes) -> list[Any]:
    """The lines that follow from these events."""
    return [json.loads(line) for line in reply.lines(events).splitlines()]


def events(*documents: object) -> bytes:
    """A stream's events, with OpenAI's end."""
    data = [*(json.dumps(document) for document in documents), "[DONE]"]
    return b"".join(b"data: %b\n\n" % text.encode() for text in data)

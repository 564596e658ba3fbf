"""Finds the message of an engine's error, in a reply or among events. Pure.

Only that message comes from the engine itself. The rest of an answer may say anything: it holds the
model's words, the model's name, and the prompt if that is echoed.

This belongs to the engine and not to a dialect (`apis`): which form an error has depends on the
engine's version more than on the path, so all forms are looked for in every answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec


def message_of_reply(body: bytes) -> str:
    """The message of an error reply. If that is no JSON, or was cut, its beginning."""
    try:
        return _message_of_error(msgspec.json.decode(body))
    except _NO_JSON:
        return body[:_LONGEST_TEXT].decode(errors="replace")


def messages_in_events(events: bytes) -> Iterator[str]:
    """The messages of the server-sent events that are errors; most streams have none."""
    for field, content in _EVENT.findall(events):
        is_data = field == b"data"
        if is_data and b'"error"' not in content:
            continue
        try:
            document = msgspec.json.decode(content)
        except _NO_JSON:
            continue
        if message := _wrapped_message(document) if is_data else _message_of_error(document):
            yield message


_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_LONGEST_TEXT = 200

# llama-server wraps an error as `data: {"error": …}`. In an event that is an error by its name, the
# error is not wrapped: in the Anthropic API, and in older versions of its own API (`error: …`).
_EVENT = re.compile(rb"^(event: error\r?\ndata|data|error): ?(\{.*)", re.MULTILINE)


def _wrapped_message(document: object) -> str:
    match document:
        case {"error": {"message": str(message)}} | {"error": str(message)}:
            return message
    return ""


def _message_of_error(document: object) -> str:
    match document:
        case {"message": str(message)}:
            return message
    return _wrapped_message(document)

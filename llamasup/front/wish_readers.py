"""Reads the wishes of a body, by the type of its content: at once, or as it comes. Pure.

A small body is decoded at once, and only the members that matter become objects. A large one is
read as it comes, in small steps: a decoder cannot stop half-way, and all other requests would wait
until it is done.
"""

from __future__ import annotations

from typing import Protocol

from llamasup.front.form_wishes import FormReader, is_form
from llamasup.front.json_wishes import JsonReader, wishes_of_json
from llamasup.front.wishes import Wishes


class Reader(Protocol):
    """Reads a body that comes in parts."""

    def feed(self, data: bytes) -> None:
        """Read the next part. Raises ClientError if no engine could read it."""

    def end(self) -> Wishes:
        """What the body asks for, now that all has come. Raises ClientError as `feed` does."""


class Unread:
    """See `Reader`. For a body that concerns only the engine."""

    def feed(self, data: bytes) -> None:
        """See `Reader.feed`."""

    def end(self) -> Wishes:
        """See `Reader.end`."""
        return Wishes()


def reader_for(content_type: bytes) -> Reader:
    """The reader for a body of this type. Raises ClientError if none can read it."""
    return FormReader(content_type) if is_form(content_type) else JsonReader()


def wishes_of(body: bytes | bytearray, content_type: bytes) -> Wishes:
    """What a small body asks for. Raises ClientError if no engine could read it."""
    if not is_form(content_type):
        return wishes_of_json(body)
    reader = FormReader(content_type)
    reader.feed(bytes(body))
    return reader.end()

"""What llamasup puts into the command line of another server, such as the port to listen on. Pure.

Only these are replaced: any other `${NAME}` stays, because a shell may be meant to read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

PORT: Final = "${PORT}"
"""A free port on 127.0.0.1."""

SOCKET: Final = "${SOCKET}"
"""The path of a Unix socket."""

MODEL: Final = "${MODEL}"
"""The model's name."""


def holds(words: Iterable[str], placeholder: str) -> bool:
    """Does any of these words have it?"""
    return any(placeholder in word for word in words)


def filled(word: str, values: Mapping[str, str]) -> str:
    """The word with these values in it. What is put in is not read again."""
    for placeholder in values:
        before, found, after = word.partition(placeholder)
        if found:
            return filled(before, values) + values[placeholder] + filled(after, values)
    return word

"""Refuses heads, of clients and of engines, that two servers might read differently.

Two servers that read a head differently disagree about where a message ends, and that is how one
client's request becomes a part of another's. So a head that can be read in two ways is refused.
"""

from __future__ import annotations

import re
from typing import Final

END_OF_HEAD: Final = b"\r\n\r\n"

MOST_HEADERS: Final = 100
"""llama-server refuses requests with more, and reading thousands would delay all other requests."""

_MOST_LINES = MOST_HEADERS + 2  # the request or status line, and the blank one

_BARE_NEWLINE = "a line of the head ends without a carriage return"

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:([^\r]*)", re.IGNORECASE)
_CONTROL_BYTE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FOLDED_LINE = re.compile(rb"\r\n[ \t]")
_LENGTH = re.compile(rb"[ \t]*[0-9]{1,18}[ \t]*")

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that are only for the next hop, in addition to those that `Connection` names."""


class BadHead(ValueError):
    """Two servers might read this head differently. The message says why."""


class TooManyLines(BadHead):
    """More header lines than any client needs."""


def refuse_ambiguity(head: bytes) -> None:
    """Raise BadHead for a complete head that two servers might read differently."""
    lines = head.count(b"\r\n")
    if lines > _MOST_LINES:
        raise TooManyLines(f"there are more than {MOST_HEADERS} headers")
    if head.count(b"\n") > lines:
        raise BadHead(_BARE_NEWLINE)
    if _CONTROL_BYTE.search(head):
        raise BadHead("there are control characters in the head")
    if head.count(b"\r") > lines:
        raise BadHead("a line of the head has a carriage return within")
    if _FOLDED_LINE.search(head):
        raise BadHead("header lines must not be folded")
    lengths = _CONTENT_LENGTH.findall(head)
    if len(lengths) > 1:
        raise BadHead("there is more than one Content-Length")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise BadHead("Content-Length is not a number, or not one that can be")


def refuse_bare_newlines(head: bytes | bytearray) -> None:
    """Raise BadHead if a line ends without a carriage return, in the part of a head that has come.

    Counting is six times as fast as a regex, and the head of a slow client is checked again with
    every byte.
    """
    if head.count(b"\n") > head.count(b"\r\n"):
        raise BadHead(_BARE_NEWLINE)

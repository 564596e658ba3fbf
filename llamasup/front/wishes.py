"""What a request asks of us: which model, and whether the answer is a stream. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn
from urllib.parse import unquote_plus

import msgspec

from llamasup.errors import ClientError

LONGEST_NAME: Final = 1024
"""Bytes of a model's name, in UTF-8."""


class Member(NamedTuple):
    """Where a member of a large JSON object lies, in bytes from the body's start."""

    name: str
    """Its name; "" if that is too long for a param."""

    start: int
    """After the brace or comma before it."""

    value: int
    """After its colon."""

    end: int
    """The comma or brace after it."""


class Wishes(msgspec.Struct, frozen=True):
    """What a request's body asks of llamasup."""

    model: str | None = None
    stream: bool = False
    members: Sequence[Member] | None = None
    """The members of a large JSON object; None for other bodies."""


def model_in_query(query: bytes) -> str | None:
    """The first `model=` of a query that is not empty. Raises ClientError if it is too long."""
    found = _MODEL_IN_QUERY.search(query)
    if found is None:
        return None
    if len(found[1]) > 3 * LONGEST_NAME:
        refuse_long_name()
    return checked_name(unquote_plus(found[1].decode("latin-1"), encoding="utf-8"))


_SURELY_SHORT = LONGEST_NAME // 4
_MODEL_IN_QUERY = re.compile(rb"(?:^|&)model=([^&]+)")


def checked_name(name: str) -> str:
    """The model's name. Raises ClientError if it is too long."""
    if len(name) > _SURELY_SHORT and len(name.encode(errors="replace")) > LONGEST_NAME:
        refuse_long_name()
    return name


def refuse_long_name() -> NoReturn:
    """Raise the ClientError for a name that is too long."""
    raise ClientError(f"the model's name is over {LONGEST_NAME} bytes")

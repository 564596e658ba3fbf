"""The headers of a request that say who asks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

AUTHORIZATION: Final = b"authorization"
API_KEY: Final = b"x-api-key"

SECRETS: Final = frozenset({AUTHORIZATION, b"cookie", API_KEY})
"""Headers that are meant for llamasup: an engine gets them only if it asks for keys itself."""


def header(headers: Headers, wanted: bytes) -> bytes:
    """The first header of this name (in lower case), empty if there is none."""
    return next((value for name, value in headers if name == wanted), b"")

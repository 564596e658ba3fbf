"""Feeds bodies to readers of wishes, and measures how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

from llamasup.errors import ClientError
from llamasup.front.wish_readers import Reader
from llamasup.front.wishes import Wishes

JSON = b"application/json"
FORM = b"multipart/form-data; boundary=edge"
STEP = 8 << 10
"""A body is fed in parts of this size: what one of them takes is what the loop stands still."""
MOMENT = 0.05
"""Ten times what may be, for a machine that has other things to do."""


def fed(reader: Reader, body: bytes, cuts: list[int]) -> Wishes:
    """What the reader finds in `body`, which comes cut at `cuts`."""
    edges = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    for start, stop in pairwise(edges):
        reader.feed(body[start:stop])
    found = reader.end()
    return Wishes(found.model, found.stream)


def steps(body: bytes) -> list[int]:
    return list(range(0, len(body), STEP))


M = 1 << 20


def fastest(act: Callable[[], object]) -> float:
    """Seconds of CPU; the best of three."""

    def once() -> float:
        started = time.process_time()
        with suppress(ClientError):
            act()
        return time.process_time() - started

    return min(once() for _ in range(3))

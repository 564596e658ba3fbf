"""Server-sent events, read and written."""

from __future__ import annotations

import json


def parsed(event: bytes) -> tuple[str | None, object]:
    """The event's name and its document."""
    assert event.endswith(b"\n\n")
    lines = event.decode().strip().split("\n")
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    (data,) = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return (names[0] if names else None), json.loads(data)

"""Within one glance at many things, nothing is looked at twice.

A survey of 2,000 models asks for the engine, and for each file, a dozen times for each of them; a
load asks for its own as often. Outside of a glance nothing is remembered: what is loaded is looked
at in that moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Seen = TypeVar("Seen")

_glance: ContextVar[dict[Hashable, Any] | None] = ContextVar("glance", default=None)


@contextmanager
def one_glance() -> Iterator[None]:
    """What this task has seen once, in the block, is not looked at again."""
    token = _glance.set({})
    try:
        yield
    finally:
        _glance.reset(token)


async def seen(what: Hashable, look: Callable[[], Awaitable[Seen]]) -> Seen:
    """What `look` says of it, now or before in the same glance. Raises what it raises."""
    known = _glance.get()
    if known is None:
        return await look()
    if what not in known:
        known[what] = await look()
    found: Seen = known[what]
    return found

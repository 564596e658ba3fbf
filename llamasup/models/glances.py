"""Within one glance at many things, nothing is looked at twice.

Whoever surveys 2,000 models asks for the engine, and for each file, a dozen times for each of them.
In between nothing is remembered: who loads a model wants to know what there is at that moment.
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

"""A glance: a block in which nothing is looked at twice.

A survey of 2,000 models asks a dozen times per model for the engine and for each file; a load asks
as often for its own model. Outside of a glance nothing is remembered: a model that is loaded is
looked at in that moment.
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
    """In this block, this task does not look again at what it has seen once."""
    token = _glance.set({})
    try:
        yield
    finally:
        _glance.reset(token)


async def seen(what: Hashable, look: Callable[[], Awaitable[Seen]]) -> Seen:
    """What `look` returns for this, now or earlier in the same glance. Raises what `look`
    raises."""
    known = _glance.get()
    if known is None:
        return await look()
    if what not in known:
        known[what] = await look()
    found: Seen = known[what]
    return found

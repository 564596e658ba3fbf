"""How much a measurement counts beside the need that the engine or the formula says. Pure.

What a process held is not what it needs. It may have cached prompts, which it can do without; it
may have been only the shell around the engine; the system may have taken pages from it; it may have
grown for an unknown reason. So a measurement refines the need, within bounds, and for a week.
"""

from __future__ import annotations

from typing import Final

_LIFETIME: Final = 7 * 86400.0
_FACTOR: Final = 2
_PROGRAM: Final = 1 << 30
"""What neither of them includes: the program, its libraries, a GPU's driver."""


def is_fresh(at: float, now: float) -> bool:
    """Does an answer or measurement of that time still count? One from the future never does."""
    return 0 <= now - at < _LIFETIME


def counted(held: int, word: int | None, cache: int) -> int:
    """What a process needs if it `held` this much, of which up to `cache` may be cached prompts.

    `word` is the need as the engine or the formula says; None if that is not known.
    """
    if word is None:
        return held
    without_cache = held if held <= word else max(held - cache, word)
    return min(max(without_cache, word // _FACTOR), word * _FACTOR + _PROGRAM)

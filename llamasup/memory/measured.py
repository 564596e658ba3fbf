"""How much a measurement counts beside the word of the engine or of the formula. Pure.

What a process held is not what it needs. It may have cached prompts, which it can do without; it
may have been the shell around the engine; the system may have taken pages from it; it may have
grown for an unknown reason. So a measurement refines the word, within bounds, and for a week.
"""

from __future__ import annotations

from typing import Final

_LIFETIME: Final = 7 * 86400.0
_FACTOR: Final = 2
_PROGRAM: Final = 1 << 30
"""What neither word includes: the program, its libraries, a GPU's driver."""


def is_fresh(at: float, now: float) -> bool:
    """Does what was said or measured then still count? A time in the future never does."""
    return 0 <= now - at < _LIFETIME


def counted(held: int, word: int | None, cache: int) -> int:
    """What a process needs that `held` so much, of which up to `cache` may be prompts.

    `word` is what it should need; None if that is not known.
    """
    if word is None:
        return held
    without_cache = held if held <= word else max(held - cache, word)
    return min(max(without_cache, word // _FACTOR), word * _FACTOR + _PROGRAM)

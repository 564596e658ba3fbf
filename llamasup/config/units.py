"""Durations and sizes: read as the operator writes them, written as people read them."""

from __future__ import annotations

import re
from fractions import Fraction

from llamasup.config.problems import Unfit
from llamasup.config.schema import Bytes, Seconds
from llamasup.config.wording import shown

_MILLISECONDS = {"ms": 1, "": 1000, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,12})?) ?(ms|s|m|h|d|)")
_DURATIONS = 'write one such as "250ms", "90s", "30m", "1.5h" or "1d", or a number of seconds'

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,12})?) ?(?:([kmgt])(i?))?b?", re.IGNORECASE)
_SIZES = 'write one such as "64MiB", "1.5GB" or "512k", or a whole number of bytes'

_TOO_MUCH = 2**63
"""TOML promises integers only below this, and no machine needs larger ones."""


def read_duration(value: object) -> Seconds:
    """`"1.5h"`, or a number of seconds. Raises Unfit, which says how durations are written."""
    number = _seconds(value) if isinstance(value, str) else value
    if isinstance(number, int | float) and type(number) is not bool and 0 <= number < _TOO_MUCH:
        return Seconds(abs(float(number)))  # TOML knows a -0.0
    raise Unfit(f"{shown(value)} is not a duration", _DURATIONS)


def _seconds(text: str) -> float:
    matched = _DURATION.fullmatch(text)
    if matched is None:
        raise Unfit(f"{shown(text)} is not a duration", _DURATIONS)
    number, unit = matched.groups()
    return float(Fraction(number) * _MILLISECONDS[unit] / 1000)


def write_duration(seconds: Seconds) -> str | float:
    """`"90s"`, or a plain number if there are parts of a second."""
    return f"{seconds:.0f}s" if float(seconds).is_integer() else seconds


def read_size(value: object) -> Bytes:
    """`"64MiB"`, or a number of bytes. Raises Unfit, which says how sizes are written.

    With an `i` a unit is a power of 1024, without one a power of 1000. Rounded to whole bytes.
    """
    number = _bytes(value) if isinstance(value, str) else value
    if type(number) is int and 0 <= number < _TOO_MUCH:
        return Bytes(number)
    raise Unfit(f"{shown(value)} is not a size", _SIZES)


def _bytes(text: str) -> int:
    matched = _SIZE.fullmatch(text)
    if matched is None:
        raise Unfit(f"{shown(text)} is not a size", _SIZES)
    number, prefix, binary = matched.groups()
    if prefix is None and "." in number:
        raise Unfit(f"{shown(text)} is not a whole number of bytes", _SIZES)
    power = " kmgt".index(prefix.lower()) if prefix else 0
    unit: int = (1024 if binary else 1000) ** power
    return round(Fraction(number) * unit)


def rounded_size(size: int) -> str:
    """For people: `"1.2 GiB"`, `"64 MiB"`."""
    mebibytes = size / 1024**2
    if mebibytes >= 1000:
        return f"{mebibytes / 1024:.1f} GiB"
    return f"{mebibytes:.1f} MiB" if 0 < mebibytes < 1 else f"{mebibytes:.0f} MiB"


def write_size(size: Bytes) -> str | int:
    """In the largest unit that leaves no remainder: `"64MiB"`."""
    for power, prefix in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{prefix}"
    return size

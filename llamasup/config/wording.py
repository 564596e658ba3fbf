"""How messages name things: a value that was written, a key, the names to choose from."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

from llamasup.config.problems import Key


def quoted(text: str) -> str:
    """The text as a TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def bare_or_quoted(name: str) -> str:
    """The name as TOML writes one in a key."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)


def dotted(key: Key) -> str:
    """The key as TOML writes it: `models."qwen2.5".aliases[0]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{bare_or_quoted(step)}" for step in key)
    return "".join(steps).removeprefix(".")


def shown(value: object) -> str:
    """A value as it was written; if that would be too long, only its type."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value if len(value) <= 60 else f"{value[:60]}…")
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case int() if value.bit_length() > 63:
            return "a number of more than 64 bits"
        case _:
            return str(value)


def listed(choices: Iterable[object], last: str) -> str:
    """`"a", "b" or "c"`, where `last` is the "or"."""
    *others, final = map(shown, choices)
    return f"{', '.join(others)} {last} {final}" if others else final


def suggestion(name: str, known: Iterable[str], most: int = 1, prefix: str = "") -> str:
    """The known names nearest to `name`, or all of them.

    All of them begin with `prefix`, which is not compared: it would make all names look alike.
    """
    words = {word.removeprefix(prefix).casefold(): word for word in known}
    near = difflib.get_close_matches(name.removeprefix(prefix).casefold(), words, most)
    if near:
        return f"did you mean {listed([words[word] for word in near], 'or')}?"
    return f"known are {listed(sorted(words.values()), 'and')}"

"""Reads the file as plain tables, and writes tables as a file. Errors in TOML name their
position."""

from __future__ import annotations

import errno
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import toml  # type: ignore[import-untyped]
from attrs import frozen

from llamasup.config.problems import ConfigError, Problem
from llamasup.config.wording import bare_or_quoted, quoted
from llamasup.files import open_regular


def read(file: Path) -> dict[str, Any]:
    """The tables in the file. Raises ConfigError if it cannot be read."""
    try:
        with open_regular(file) as opened:
            content = opened.read()
    except OSError as error:
        raise ConfigError([Problem(str(file), "", *_unreadable(file, error))]) from None
    return parsed(content, str(file))


def parsed(content: bytes, place: str) -> dict[str, Any]:
    """The tables in this TOML from `place`. Raises ConfigError if it is not TOML."""
    text = ""
    try:
        text = content.decode("utf-8-sig")
        if (deep := _deep_key(text)) is None:
            return tomllib.loads(text)
        place = f"{place}, line {text.count(chr(10), 0, deep) + 1}"
        what = f"a key has more than {_MOST_PARTS} parts"
        fix = "put a name that has dots in it in quotes"
    except UnicodeDecodeError as error:
        what, fix = f"byte {error.start + 1} is not UTF-8 text", "save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        what, position = _syntax_error(str(error), text)
        place, fix = f"{place}, {position}", "correct the TOML there"
    except (ValueError, RecursionError):
        # tomllib raises these, too: int() refuses thousands of digits, and brackets recurse.
        what, fix = "a number is too long or brackets are too deep", "write them shorter"
    raise ConfigError([Problem(place, "", what, fix)])


_MOST_PARTS: Final = 10
"""The most parts of a dotted key. tomllib takes 85 s for one of 20,000 parts, or many of
hundreds."""

_PART = r"""(?:[\w-]++|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')"""
_DOT = r"[ \t]*+\.[ \t]*+"
_TOKEN = re.compile(
    rf"""
    \"{{3}} (?: [^"\\]++ | \\. | "(?!"") )*+ \"{{3}}     # texts of many lines
    | '{{3}} (?: [^']++ | '(?!'') )*+ '{{3}}
    | \#[^\n]*+                                        # a comment
    | (?P<deep> {_PART} (?:{_DOT}{_PART}){{{_MOST_PARTS}}} )
    | {_PART} (?:{_DOT}{_PART})*+                       # a key, a number, a text
    """,
    re.VERBOSE | re.DOTALL,
)


def _deep_key(text: str) -> int | None:
    """The position of the first key that has too many parts."""
    return next((token.start() for token in _TOKEN.finditer(text) if token["deep"]), None)


def written(tables: Mapping[str, Any]) -> str:
    """The tables as TOML."""
    encoder = toml.TomlEncoder()
    encoder.dump_funcs[str] = quoted  # the library's own function fails at a backslash before an x
    encoder.dump_funcs[_Inline] = lambda value: value.written(encoder)
    return str(toml.dumps(_with_inline_lists(tables), encoder=encoder))


@frozen
class _Inline:
    """A list that has tables in it. The library can write only lists of nothing but tables."""

    value: Any

    def written(self, encoder: toml.TomlEncoder) -> str:
        match self.value:
            case dict() as table:
                parts = [
                    f"{bare_or_quoted(k)} = {_Inline(v).written(encoder)}" for k, v in table.items()
                ]
                return "{" + ", ".join(parts) + "}"
            case list() | tuple() as values:
                return "[" + ", ".join(_Inline(value).written(encoder) for value in values) + "]"
        return str(encoder.dump_value(self.value))


def _with_inline_lists(value: Any) -> Any:
    match value:
        case dict():
            return {name: _with_inline_lists(inner) for name, inner in value.items()}
        case list() | tuple():
            return _Inline(value) if _holds_tables(value) else value
    return value


def _holds_tables(value: Any) -> bool:
    within = value if isinstance(value, list | tuple) else ()
    return isinstance(value, dict) or any(map(_holds_tables, within))


def _unreadable(file: Path, error: OSError) -> tuple[str, str]:
    if file.is_dir():
        return "this is a folder", "name the file in it"
    if isinstance(error, FileNotFoundError):
        return "there is no such file", "create it, or name another"
    if error.errno == errno.EINVAL:
        return "this is no regular file", "write the configuration into one"
    return f"cannot be read ({error.strerror})", "change its permissions, or name another"


def _syntax_error(message: str, text: str) -> tuple[str, str]:
    """What is wrong, and where. Before Python 3.14, only tomllib's message tells the position."""
    what, _, position = message.removesuffix(")").rpartition(" (at ")
    if position == "end of document":
        position = f"line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}"
    return what, position

"""`llamasup key`: make a client's key, list the keys that there are, remove one.

Keys are written to `server.keys_file`, as hashes. Without such a file, the lines to add to the
configuration are printed instead.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
import tomllib
from pathlib import Path
from typing import Any

from llamasup.cli import options
from llamasup.config import toml_file
from llamasup.config.moments import write_moment
from llamasup.config.name_checks import NAME_OF_KEY
from llamasup.config.schema import KeySettings
from llamasup.config.secrets import hash_of
from llamasup.errors import OperatorError

_PRIVATE = 0o600


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "key",
        help="make, list and remove the keys of clients",
        description="Make, list and remove the keys of clients. As soon as there is one, all"
        " clients need one.",
    )
    deeds = parser.add_subparsers(required=True, metavar="add|list|remove")
    for run, what in (
        (_add, "make a key, and show it this once (the key alone on stdout)"),
        (_list, "the names of all keys, and what they may do"),
        (_remove, "take a key out of server.keys_file"),
    ):
        deed = deeds.add_parser(
            run.__name__.removeprefix("_"), help=what, description=f"{what.capitalize()}."
        )
        if run is not _list:
            deed.add_argument(
                "name", metavar="NAME", help="the key's name, as in logs and in [keys.NAME]"
            )
        if run is _add:
            deed.add_argument(
                "--operator", action="store_true", help="it may see and change what concerns others"
            )
        options.add_to(deed)
        deed.set_defaults(run=run)


def _add(parsed: argparse.Namespace) -> int:
    """Print a new key. Returns 0. Raises OperatorError if it cannot be written."""
    name = parsed.name
    if not NAME_OF_KEY.fullmatch(name):
        raise OperatorError(f"{name}: write letters, digits, underscores, @ and -, 64 at most")
    key = f"sk-{secrets.token_urlsafe(32)}"
    table = f'[keys.{_quoted(name)}]\nkey_hash = "{hash_of(key.encode())}"\n'
    table += "operator = true\n" if parsed.operator else ""
    source = options.source(parsed)
    file = source.keys_file()
    if file is None:
        where = source.file or "your llamasup.toml"
        print(f"Add this to {where}, with limits if you like:\n\n{table}", file=sys.stderr)
    else:
        if name in _tables(file):
            raise OperatorError(f'{file}: there is a key "{name}"; remove it, or choose another')
        _append(file, f"\n{table}")
        print(f"{file} has its hash now. What it may do can be added there.", file=sys.stderr)
    print("This is the key. It is shown only now:", file=sys.stderr)
    print(key)
    return 0


def _list(parsed: argparse.Namespace) -> int:
    """Print a line for each key. Returns 0."""
    keys = options.source(parsed).load().keys
    for name, settings in keys.items():
        print(f"{name}: {_described(settings)}")
    if not keys:
        print(
            'there are no keys, so all may come; "llamasup key add NAME" makes one', file=sys.stderr
        )
    return 0


def _described(settings: KeySettings) -> str:
    limits = (
        (settings.requests_per_minute, "requests a minute"),
        (settings.tokens_per_minute, "tokens a minute"),
        (settings.at_once, "at once"),
    )
    parts = [
        "operator, " if settings.operator else "",
        f"models {', '.join(settings.models)}",
        *(f", {number} {what}" for number, what in limits if number),
        f", priority {settings.priority}" if settings.priority else "",
        f", expires {write_moment(settings.expires)}" if settings.expires else "",
    ]
    return "".join(parts)


def _remove(parsed: argparse.Namespace) -> int:
    """Take the key's table out of the file. Returns 0. Raises OperatorError if that is not
    possible; then the file is as it was."""
    file = options.source(parsed).keys_file()
    tables = {} if file is None else _tables(file)
    if file is None or parsed.name not in tables:
        where = file or "server.keys_file, which is not set"
        raise OperatorError(f'there is no key "{parsed.name}" in {where}')
    if len(tables) == 1:
        raise OperatorError(
            f'"{parsed.name}" is the last key in {file}, and without keys everybody could come in;'
            " if that is meant, take server.keys_file out of the configuration"
        )
    left = _without(file.read_text(encoding="utf-8"), parsed.name)
    rest = {name: table for name, table in tables.items() if name != parsed.name}
    if left is None or tomllib.loads(left) != {"keys": rest}:
        raise OperatorError(f"{file} is written in a way of its own: take the key out by hand")
    _replace(file, left)
    print(f'"{parsed.name}" is valid for some seconds more', file=sys.stderr)
    return 0


def _without(text: str, name: str) -> str | None:
    """The text without the key's table; None if it is not found."""
    heading = re.compile(rf'(?m)^\[keys\.(?:{name}|"{name}")\][^\n]*\n')
    if (found := heading.search(text)) is None:
        return None
    following = re.compile(r"(?m)^\[").search(text, found.end())
    return text[: found.start()] + (text[following.start() :] if following else "")


def _tables(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    tables = toml_file.read(file).get("keys", {})
    return tables if isinstance(tables, dict) else {}


def _append(file: Path, text: str) -> None:
    try:
        with os.fdopen(os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, _PRIVATE), "a") as out:
            out.write(text)
    except OSError as error:
        raise OperatorError(f"{file} cannot be written ({error.strerror})") from None


def _replace(file: Path, text: str) -> None:
    """Replace the content in one step: a reader finds all keys, or all but the one."""
    file = file.resolve()
    draft = file.with_name(f"{file.name}.new")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE), "w") as out:
            out.write(text)
        draft.chmod(file.stat().st_mode & 0o777)
        draft.replace(file)
    except OSError as error:
        raise OperatorError(f"{draft} cannot be written ({error.strerror})") from None


def _quoted(name: str) -> str:
    return name if "@" not in name else f'"{name}"'

"""What the commands have in common: the file, and the flags that override it."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from llamasup.config.load import current_folder, find, found_in
from llamasup.config.source import Source
from llamasup.errors import OperatorError


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the file and the flags."""
    flags = parser.add_argument_group("flags that win over the file")
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="the configuration (default: $LLAMASUP_CONFIG, ./llamasup.toml,"
        " ~/.config/llamasup/llamasup.toml, /etc/llamasup/llamasup.toml; none is fine)",
    )
    flags.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="PATH",
        help="serve this GGUF file under its name without .gguf (may be repeated)",
    )
    flags.add_argument(
        "--models-dir",
        action="append",
        metavar="DIR",
        help="serve the GGUF files in this folder, also those to come (may be repeated)",
    )
    flags.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="host:port, https://host:port or unix:/path (may be repeated)",
    )
    flags.add_argument("--engine", metavar="COMMAND", help="auto, embedded, a path or a command")
    flags.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    flags.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any key of the file, for example server.drain_timeout=1m (may be repeated)",
    )


def source(options: argparse.Namespace) -> Source:
    """Where the configuration is, according to these options."""
    here = current_folder()
    file = options.file or find(os.environ, here)
    named = options.file is not None or file != found_in(here)
    return Source(
        file, os.environ, _flags(options), named or bool(os.environ.get("LLAMASUP_CONFIG"))
    )


def _flags(options: argparse.Namespace) -> Mapping[str, object]:
    flags: dict[str, object] = {}
    for assignment in options.set:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise OperatorError(f'--set {assignment}: write KEY=VALUE, such as "server.listen=:80"')
        flags[key.strip()] = _value(text.strip())
    for path in options.model:
        name = Path(path).name.removesuffix(".gguf")
        other = flags.setdefault(f"models.{name}.path", path)
        if other != path:
            raise OperatorError(
                f'--model {other} and --model {path}: both would be called "{name}"; rename one of'
                " the files, or give them names of their own with"
                f" --set models.NAME.path={path}"
            )
    for key, value in (
        ("discover.folders", options.models_dir),
        ("server.listen", options.listen),
        ("engine.command", options.engine),
        ("log.level", options.log_level),
    ):
        if value is not None:
            flags[key] = value
    return flags


def _value(text: str) -> object:
    """A number, list or quoted string as TOML writes it; anything else is plain text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

"""`llamasup check`: is the configuration right, and is everything there that it names?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from llamasup.cli import options
from llamasup.config.load import dump
from llamasup.config.schema import Config
from llamasup.engine.argv import environment
from llamasup.engine.locate import Engine, ask, locate
from llamasup.errors import EngineUnusable
from llamasup.serve import cache_folder


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "check", help="validate the configuration, the model files and the engine"
    )
    options.add_to(parser)
    parser.add_argument("--show", action="store_true", help="print the configuration in effect")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print every problem. Returns 0 if there is none, else 2."""
    config, file = options.configuration(parsed)
    problems = list(missing_files(config, file))
    try:
        engine = find_engine(config)
    except EngineUnusable as error:
        problems.append(str(error))
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 2
    if parsed.show:
        print(dump(config), end="")
        return 0
    models = f"{len(config.models)} models" if config.models else "no models, so the demo"
    print(f"{file or 'the default configuration'} is fine: {models}; {engine.program}")
    print(f"  {engine.version}")
    return 0


def missing_files(config: Config, file: Path | None) -> Iterator[str]:
    """A line for each model file that cannot be read."""
    for name, settings in config.models.items():
        try:
            with settings.path.open("rb"):
                pass
        except OSError as error:
            yield (
                f"{file or 'flag'}: models.{name}.path: {settings.path}: {error.strerror};"
                " write the path of a GGUF file"
            )


def find_engine(config: Config) -> Engine:
    """The engine, run once. Raises EngineUnusable in its own words."""
    program = locate(config.engine.command, os.environ, cache_folder(config))
    return trio.run(ask, program, environment(program, os.environ, config.engine.env, sys.platform))

"""`llamasup check`: is the configuration right, and does everything exist that it names?"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from llamasup.cli import options
from llamasup.config.folders import cache_folder
from llamasup.config.load import dump
from llamasup.config.schema import Config, ServerSettings
from llamasup.engine.argv import environment
from llamasup.engine.locate import Engine, ask, is_needed, locate, own_engines
from llamasup.errors import EngineUnusable, OperatorError
from llamasup.http.certificate import shown_by
from llamasup.models.headers import defect_of
from llamasup.models.library import Library, Look


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "check",
        help="check the configuration, the model files and the engine",
        description="Check the configuration, the model files and the engine, and start no model."
        " Whether endpoints answer says llamasup ping.",
    )
    options.add_to(parser)
    parser.add_argument("--show", action="store_true", help="print the configuration in effect")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print every problem. Returns 0 if there is none, else 2."""
    source = options.source(parsed)
    config, file = source.load(), source.file
    look = trio.run(Library(config).look)
    problems = [
        *unusable_certificate(config),
        *unusable_files(config, file),
        *missing_programs(config, file),
        *missing_models(config, file, look),
        *unusable_finds(config, look),
    ]
    engine = None
    try:
        engine = find_engine(config) if is_needed(config) else None
    except EngineUnusable as error:
        problems.append(str(error))
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 2
    if parsed.show:
        print(dump(config), end="")
        return 0
    is_demo = not (config.models or config.discover.folders or config.endpoints)
    models = "no models, so the demo" if is_demo else f"{len(look.models)} models"
    by = f"; {engine.program}" if engine else ""
    count = len(config.endpoints)
    elsewhere = f", {count} endpoint{'s' if count > 1 else ''}" if count else ""
    print(f"{file or 'the default configuration'} is fine: {models}{elsewhere}{by}")
    if engine:
        print(f"  {engine.version}")
    for folder, found in look.found.items():
        print(f"  models in {folder}: {found}")
    return 0


def unusable_certificate(config: Config) -> Iterator[str]:
    """A line if the certificate or its key cannot be used."""
    try:
        trio.run(shown_by, config.server)
    except OperatorError as error:
        yield str(error)


def unusable_files(config: Config, file: Path | None) -> Iterator[str]:
    """A line for each configured model file that cannot be read, or is no model."""
    for name, settings in config.models.items():
        if isinstance(settings, ServerSettings):
            continue
        for key, path in (("path", settings.path), ("mmproj", settings.mmproj)):
            if path != "none" and (why := defect_of(path)):
                yield (
                    f"{file or 'command line'}: models.{name}.{key}: {path}: {why};"
                    " write the path of a GGUF file"
                )


def missing_programs(config: Config, file: Path | None) -> Iterator[str]:
    """A line for each server whose program is not there."""
    for name, settings in config.models.items():
        if isinstance(settings, ServerSettings) and not shutil.which(settings.command[0]):
            yield (
                f"{file or 'command line'}: models.{name}.command: {settings.command[0]}:"
                " no such program; write its full path, or the name of one on PATH"
            )


def unusable_finds(config: Config, look: Look) -> Iterator[str]:
    """A line for each file in a folder that looks like a model, but is none."""
    for name, settings in look.models.items():
        if name in config.models or isinstance(settings, ServerSettings):
            continue
        if why := defect_of(settings.path):
            yield f"{settings.path}: {why}; replace it, or take it out of the folder"


def missing_models(config: Config, file: Path | None, look: Look) -> Iterator[str]:
    """A line for each folder that cannot be read, and each model that is named but not found."""
    place = file or "command line"
    for folder, why in look.unreadable.items():
        yield f"{place}: discover.folders: {folder}: {why}; make it, or write another folder"
    default = config.server.default_model
    if default and look.names.find(default) is None:
        yield f'{place}: server.default_model: no folder holds a model "{default}"'
    for name in config.pool.preload:
        if name not in look.models:
            yield f'{place}: pool.preload: no folder holds a model "{name}"'


def find_engine(config: Config) -> Engine:
    """Find the engine, and run it once. Raises EngineUnusable in the engine's own words."""
    cache = cache_folder(config)
    for name, command in own_engines(config):
        locate(command, os.environ, cache, f"models.{name}.engine")
    program = locate(config.engine.command, os.environ, cache)
    return trio.run(ask, program, environment(program, os.environ, config.engine.env, sys.platform))

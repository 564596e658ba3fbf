"""Finds the engine and asks it what it is: its version, and the flags that it knows."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import trio
from attrs import frozen

from llamasup.config.schema import Config, ModelSettings, ServerSettings
from llamasup.engine.failures import Kind, explain
from llamasup.errors import EngineUnusable, ModelUnavailable
from llamasup.processes import asking
from llamasup.shortages import is_shortage

_FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
_SAYS_UNIX_SOCKETS = re.compile(r"unix\s+socket", re.IGNORECASE)
_VERSION = re.compile(r"^version:? .*", re.MULTILINE)
_PATIENCE = 20.0


@frozen
class Program:
    """A command that should be an engine, but has not been run yet."""

    command: tuple[str, ...]
    folder: Path | None
    """The folder of its shared libraries; None if the loader finds them by itself."""

    def __str__(self) -> str:
        return shlex.join(self.command)


@frozen
class Engine:
    """A program that has run and said what it can do."""

    program: Program
    version: str
    flags: frozenset[str]
    unix_sockets: bool


EMBEDDED = Program((sys.executable, "-m", "llamasup.engine.embedded"), None)


COMMAND = "engine.command"


def is_needed(config: Config) -> bool:
    """Is there any model for an engine? Without a model at all, there is the demo."""
    models = config.models.values()
    is_all_served = all(isinstance(model, ServerSettings) for model in models)
    has_none = not models and not config.endpoints
    return bool(config.discover.folders) or has_none or not is_all_served


def own_engines(config: Config) -> Iterator[tuple[str, str]]:
    """The models that have an engine of their own, and its command."""
    for name, model in config.models.items():
        if isinstance(model, ModelSettings) and model.engine:
            yield name, model.engine


def locate(command: str, environ: Mapping[str, str], cache: Path, key: str = COMMAND) -> Program:
    """The program that `engine.command` means. This only looks, and runs nothing.

    If it was written under another key, errors name that.

    Raises EngineUnusable with what was looked for, and ModelUnavailable for a shortage.
    """
    try:
        return _located(command, environ, cache, key)
    except OSError as error:
        raise _verdict(error)(f"the engine cannot be looked for: {error.strerror}") from error


def _located(command: str, environ: Mapping[str, str], cache: Path, key: str) -> Program:
    if command == "embedded":
        return _embedded()
    if command != "auto":
        return _named(command, environ, key)
    for program in _candidates(environ, cache):
        return program
    raise EngineUnusable(
        "there is no engine: neither llama-server nor llama is on PATH, and the embedded engine"
        " is not installed; put llama.cpp on PATH, set engine.command to its llama-server, or"
        ' pip install "llamasup[engine]"'
    )


def _candidates(environ: Mapping[str, str], cache: Path) -> Iterator[Program]:
    path = environ.get("PATH", "")
    if found := shutil.which("llama-server", path=path):
        yield _program(found)
    if found := shutil.which("llama", path=path):
        yield _program(found, "serve")
    for cached in _newest_first(cache / "engines"):
        yield _program(str(cached))
    if importlib.util.find_spec("xllamacpp"):
        yield EMBEDDED


def _newest_first(engines: Path) -> Iterator[Path]:
    try:
        folders = sorted(engines.iterdir(), reverse=True)
    except OSError as error:
        if is_shortage(error):
            raise  # there may be one
        return
    for folder in folders:
        if (program := folder / "llama-server").exists():
            yield program


def _embedded() -> Program:
    if importlib.util.find_spec("xllamacpp") is None:
        raise EngineUnusable('the embedded engine is not installed; pip install "llamasup[engine]"')
    return EMBEDDED


def _named(command: str, environ: Mapping[str, str], key: str) -> Program:
    """The words of `engine.command`: it is a path, which may hold blanks, or a command line."""
    whole = os.path.expanduser(command)
    words = [whole] if os.path.isfile(whole) else _split(command, key)
    found = shutil.which(os.path.expanduser(words[0]), path=environ.get("PATH", ""))
    if found is None:
        there = "cannot be executed" if os.path.exists(words[0]) else "does not exist"
        raise EngineUnusable(f'{key}: {words[0]} {there}; name a llama-server, or write "auto"')
    return _program(found, *words[1:])


def _split(command: str, key: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise EngineUnusable(f"{key}: {command}: {error}") from None
    if not words:
        raise EngineUnusable(f'{key} is empty; write "auto" or a path')
    return words


def _program(path: str, *arguments: str) -> Program:
    return Program((path, *arguments), Path(path).resolve().parent)


async def ask(program: Program, environment: Mapping[str, str]) -> Engine:
    """Run `--help` and `--version`. Raises EngineUnusable with the program's own words.

    Raises ModelUnavailable if that says nothing against the program: it gave no answer in time, or
    a shortage kept it from starting.
    """
    outputs: dict[str, str] = {}
    failures: list[ModelUnavailable] = []

    async def run(flag: str, nursery: trio.Nursery) -> None:
        try:
            outputs[flag] = await _output(program, flag, environment)
        except ModelUnavailable as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    with trio.move_on_after(_PATIENCE) as patience:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "--help", nursery)
            nursery.start_soon(run, "--version", nursery)
    if failures:
        raise failures[0]
    if patience.cancelled_caught:
        # The machine may be busy. The next load will ask again.
        raise ModelUnavailable(f"{program} --help gave no answer within {_PATIENCE:.0f} s")
    return described(program, outputs["--help"], outputs["--version"])


async def _output(program: Program, flag: str, environment: Mapping[str, str]) -> str:
    try:
        done = await asking.run([*program.command, flag], environment)
    except asking.StillRunning as error:
        raise ModelUnavailable(str(error)) from error
    except OSError as error:
        raise _verdict(error)(f"{program} cannot be run: {error.strerror}") from error
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    if done.status:
        cause = explain(done.status, said.splitlines())
        error_type = ModelUnavailable if cause.kind is Kind.SHORTAGE else EngineUnusable
        raise error_type(f"{program} cannot be run: {cause.words}")
    return said


def _verdict(error: OSError) -> type[ModelUnavailable]:
    """The error for a shortage, which is temporary and says nothing against the engine."""
    return ModelUnavailable if is_shortage(error) else EngineUnusable


def described(program: Program, help_text: str, version_text: str) -> Engine:
    """The engine that the two texts describe. Raises EngineUnusable if it is no llama-server."""
    flags = frozenset(_FLAG.findall(help_text))
    if not {"--model", "--host"} <= flags:
        raise EngineUnusable(f"{program} is no llama-server: its --help knows no --model or --host")
    # Backends may announce their devices before it.
    version = _VERSION.search(version_text)
    return Engine(
        program=program,
        version=version[0] if version else "unknown version",
        flags=flags,
        unix_sockets=bool(_SAYS_UNIX_SOCKETS.search(help_text)),
    )

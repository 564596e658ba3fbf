"""The configuration over HTTP: what is shown of it, and what a POST may change.

A POST cannot change which programs run, which files they read, or which API keys are accepted. It
may add a model whose file lies in one of the `discover.folders`: that file is offered anyway.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from llamasup.config import toml_file
from llamasup.config.load import from_tables
from llamasup.config.problems import ConfigError, Problem
from llamasup.config.schema import AnyModel, Config, ServerSettings
from llamasup.config.structure import strict
from llamasup.errors import Forbidden

_PLACE = "the request's body"

_HIDDEN = "(hidden)"
_SECRET_ARGS = {"--api-key", "-hft", "--hf-token"}


def shown(config: Config) -> dict[str, Any]:
    """The configuration except its secrets, as tables that `read` accepts."""
    tables: dict[str, Any] = strict.unstructure(config)
    for section, key in _secrets(config):
        del tables[section][key]
    del tables["keys"]
    tables["engine"]["args"] = hidden(config.engine.args)
    for name, model in config.models.items():
        key = "command" if isinstance(model, ServerSettings) else "extra_args"
        tables["models"][name][key] = hidden(_arguments(model))
        tables["models"][name]["env"] = dict.fromkeys(model.env, _HIDDEN)
    for entry in tables["endpoints"]:
        del entry["key"], entry["headers"]
    return tables


def hidden(args: Sequence[str]) -> list[str]:
    """The arguments, with secrets replaced."""
    return [
        _HIDDEN if before in _SECRET_ARGS else arg
        for before, arg in zip(("", *args), args, strict=False)
    ]


def _arguments(model: AnyModel) -> tuple[str, ...]:
    return model.command if isinstance(model, ServerSettings) else model.extra_args


def tables(body: bytes, content_type: bytes) -> dict[str, Any]:
    """The tables in this JSON or TOML. Raises ConfigError if it is neither."""
    return toml_file.parsed(body, _PLACE) if b"toml" in content_type.lower() else _json(body)


def read(tables: dict[str, Any], running: Config) -> Config:
    """The configuration that these tables make. Raises ConfigError if they are none, and Forbidden
    if they would change what a POST cannot change."""
    if "keys" in tables:
        raise Forbidden("this cannot be changed over HTTP: keys")
    config = _revealed(from_tables(tables, _PLACE, _secrets(running)), running)
    config = attrs.evolve(config, keys=running.keys)
    keys = out_of_reach(running, config)
    if left_out := [key for key in keys if not _is_written(key, tables)]:
        raise Forbidden(
            f"{', '.join(left_out)} would change by being left out: a POST is the whole"
            " configuration, so change what GET /config shows, and post all of it"
        )
    if keys:
        raise Forbidden(f"this cannot be changed over HTTP: {', '.join(keys)}")
    return config


def _is_written(key: str, tables: Any) -> bool:
    section, _, rest = key.partition(".")
    table = tables.get(section, {})
    return section == "models" or (rest in table if rest else bool(table))


def _revealed(config: Config, running: Config) -> Config:
    """The configuration with the real arguments where they were posted with hidden secrets, just as
    they are shown."""

    def meant_by(args: tuple[str, ...], running: tuple[str, ...]) -> tuple[str, ...]:
        return running if list(args) == hidden(running) else args

    def revealed(model: AnyModel, own: AnyModel | None) -> AnyModel:
        if own is None or type(model) is not type(own):
            return model
        env = {k: own.env.get(k, v) if v == _HIDDEN else v for k, v in model.env.items()}
        model = attrs.evolve(model, env=env)
        args = meant_by(_arguments(model), _arguments(own))
        if isinstance(model, ServerSettings):
            return attrs.evolve(model, command=args)
        return attrs.evolve(model, extra_args=args)

    models = {
        name: revealed(model, running.models.get(name)) for name, model in config.models.items()
    }
    known = {entry.name: entry for entry in running.endpoints}
    endpoints = tuple(
        attrs.evolve(entry, key=same.key, headers=same.headers)
        if (same := known.get(entry.name))
        else entry
        for entry in config.endpoints
    )
    args = meant_by(config.engine.args, running.engine.args)
    config = attrs.evolve(config, endpoints=endpoints)
    return attrs.evolve(config, models=models, engine=attrs.evolve(config.engine, args=args))


def out_of_reach(before: Config, after: Config) -> list[str]:
    """The keys that would change though a POST cannot change them. A model may be left out."""
    old, new = _beyond(before), _beyond(after)
    for name in after.models.keys() - before.models.keys():
        old |= _of_a_newcomer(name, after.models[name], before.discover.folders)
    changed = [key for key, value in new.items() if value != old.get(key)]
    listens_elsewhere = set(after.server.listen) - set(before.server.listen)
    if any(address.startswith("unix:") for address in listens_elsewhere):
        changed.append("server.listen")  # such an address is a path
    return changed


def _beyond(config: Config) -> dict[str, object]:
    engine = config.engine
    keys: dict[str, object] = {
        "server.admin_key": config.server.admin_key,
        "server.keys_file": config.server.keys_file,
        "server.tls_certificate": config.server.tls_certificate,
        "server.tls_key": config.server.tls_key,
        "engine.command": engine.command,
        "engine.args": engine.args,
        "engine.env": dict(engine.env),
        "engine.rpc": engine.rpc,
        "discover.folders": config.discover.folders,
        "endpoints": config.endpoints,
        "folders": config.folders,
        "log": config.log,
    }
    for name, model in config.models.items():
        keys[f"models.{name}.env"] = dict(model.env)
        if isinstance(model, ServerSettings):
            keys[f"models.{name}.command"] = model.command
            continue
        keys[f"models.{name}.path"] = model.path
        keys[f"models.{name}.mmproj"] = model.mmproj
        keys[f"models.{name}.extra_args"] = model.extra_args
        keys[f"models.{name}.engine"] = model.engine
        keys[f"models.{name}.rpc"] = model.rpc
    return keys


def _of_a_newcomer(name: str, model: AnyModel, folders: Sequence[Path]) -> dict[str, object]:
    """The values that a new model may have: any file of the folders, no arguments of its own."""
    if isinstance(model, ServerSettings):
        return {}

    def lies_there(path: Path) -> bool:
        return ".." not in path.parts and any(map(path.is_relative_to, folders))

    mmproj = model.mmproj
    return {
        f"models.{name}.path": model.path if lies_there(model.path) else None,
        f"models.{name}.mmproj": mmproj if mmproj == "none" or lies_there(mmproj) else "none",
        f"models.{name}.extra_args": (),
        f"models.{name}.engine": "",
        f"models.{name}.env": {},
        f"models.{name}.rpc": (),
    }


def _secrets(config: Config) -> dict[tuple[str, str], object]:
    """The values that are not shown. If a POST leaves them out, they stay as they are."""
    return {
        ("server", "admin_key"): config.server.admin_key,
        ("engine", "env"): dict(config.engine.env),
    }


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        problem = Problem(_PLACE, "", f"this is not JSON ({error})", "correct it, or send TOML")
        raise ConfigError([problem]) from None
    if not isinstance(document, dict):
        problem = Problem(_PLACE, "", "this is not an object", 'send one such as {"server": {}}')
        raise ConfigError([problem])
    return document

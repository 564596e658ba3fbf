"""The configuration over HTTP: what is shown of it, and what can be changed from there.

Nothing that comes from there changes which programs run, on which files, or who may come.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs

from llamasup.config import toml_file
from llamasup.config.load import meant
from llamasup.config.problems import ConfigError, Problem
from llamasup.config.schema import Config
from llamasup.config.structure import strict
from llamasup.errors import Forbidden

_PLACE = "the request's body"

_HIDDEN = "(hidden)"
_SECRET_ARGS = {"--api-key", "-hft", "--hf-token"}


def shown(config: Config) -> dict[str, Any]:
    """All of it but the secrets, as tables. `read` takes it back."""
    tables: dict[str, Any] = strict.unstructure(config)
    for section, key in _secrets(config):
        del tables[section][key]
    tables["engine"]["args"] = hidden(config.engine.args)
    for name, model in config.models.items():
        tables["models"][name]["extra_args"] = hidden(model.extra_args)
    return tables


def hidden(args: Sequence[str]) -> list[str]:
    """The arguments, without what only the operator and the engine are to know."""
    return [
        _HIDDEN if before in _SECRET_ARGS else arg
        for before, arg in zip(("", *args), args, strict=False)
    ]


def read(body: bytes, content_type: bytes, running: Config) -> Config:
    """What the JSON or the TOML means. Raises ConfigError for what is no configuration, and
    Forbidden for what would change more than it may."""
    tables = toml_file.parsed(body, _PLACE) if b"toml" in content_type.lower() else _json(body)
    config = _revealed(meant(tables, _PLACE, _secrets(running)), running)
    if keys := out_of_reach(running, config):
        raise Forbidden(f"this cannot be changed over HTTP: {', '.join(keys)}")
    return config


def _revealed(config: Config, running: Config) -> Config:
    """With the arguments that run, wherever they were posted as they are shown."""

    def meant_by(args: tuple[str, ...], running: tuple[str, ...]) -> tuple[str, ...]:
        return running if list(args) == hidden(running) else args

    models = {
        name: attrs.evolve(model, extra_args=meant_by(model.extra_args, own.extra_args))
        if (own := running.models.get(name))
        else model
        for name, model in config.models.items()
    }
    args = meant_by(config.engine.args, running.engine.args)
    return attrs.evolve(config, models=models, engine=attrs.evolve(config.engine, args=args))


def out_of_reach(before: Config, after: Config) -> list[str]:
    """The keys that cannot be changed from there, but are. A model may go."""
    old, new = _beyond(before), _beyond(after)
    changed = [key for key, value in new.items() if value != old.get(key)]
    listens_elsewhere = set(after.server.listen) - set(before.server.listen)
    if any(address.startswith("unix:") for address in listens_elsewhere):
        changed.append("server.listen")  # that is a path, too
    return changed


def _beyond(config: Config) -> dict[str, object]:
    engine = config.engine
    keys: dict[str, object] = {
        "server.admin_key": config.server.admin_key,
        "engine.command": engine.command,
        "engine.args": engine.args,
        "engine.env": dict(engine.env),
        "discover.folders": config.discover.folders,
        "folders": config.folders,
        "log": config.log,
    }
    for name, model in config.models.items():
        keys[f"models.{name}.path"] = model.path
        keys[f"models.{name}.mmproj"] = model.mmproj
        keys[f"models.{name}.extra_args"] = model.extra_args
    return keys


def _secrets(config: Config) -> dict[tuple[str, str], object]:
    """What is not shown, and holds on where it is not posted either."""
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

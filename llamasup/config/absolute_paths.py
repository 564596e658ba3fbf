"""Makes all paths of a configuration absolute: each starts at the folder of where it was written.
Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import attrs

from llamasup.config.schema import Config
from llamasup.config.tree import Tree

Table = TypeVar("Table", bound=attrs.AttrsInstance)


def with_absolute_paths(config: Config, tree: Tree) -> Config:
    """The configuration that the tree makes, with absolute paths."""
    models = {name: _placed(model, tree, "models", name) for name, model in config.models.items()}
    keys = {name: _placed(key, tree, "keys", name) for name, key in config.keys.items()}
    return attrs.evolve(
        config,
        server=_placed(config.server, tree, "server"),
        keys=keys,
        models=models,
        discover=_placed(config.discover, tree, "discover"),
        endpoints=tuple(_placed(entry, tree, "endpoints") for entry in config.endpoints),
        folders=_placed(config.folders, tree, "folders"),
    )


def _placed(table: Table, tree: Tree, *key: str) -> Table:
    """The same table, with its paths in their places."""
    changes: dict[str, Any] = {}
    for attribute in attrs.fields(type(table)):
        name, value = attribute.name, getattr(table, attribute.name)
        folder = tree.origin((*key, name)).folder
        if isinstance(value, Path):
            changes[name] = folder / value
        elif isinstance(value, tuple) and value and isinstance(value[0], Path):
            changes[name] = tuple(folder / path for path in value)
    return attrs.evolve(table, **changes)  # type: ignore[misc]

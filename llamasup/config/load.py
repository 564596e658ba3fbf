"""Makes a `Config` of what the operator wrote: defaults < file < environment < flags.

`toml_file` reads the file. `layers` lays environment and flags over it, in one `tree` that knows
where each value was written. `structure` turns the tree into the classes of `schema`, and `checks`
finds what single keys cannot tell. All mistakes are reported at once, as a `ConfigError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import cattrs
from platformdirs import user_config_path

from llamasup.config import secrets, toml_file
from llamasup.config.absolute_paths import with_absolute_paths
from llamasup.config.checks import contradictions
from llamasup.config.layers import lay_environment, lay_flags
from llamasup.config.problems import ConfigError
from llamasup.config.schema import Config
from llamasup.config.structure import refusals, strict
from llamasup.config.tree import Origin, Tree


def find(environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file to load: the one that $LLAMASUP_CONFIG names, or the first that exists."""
    if named := environ.get("LLAMASUP_CONFIG"):
        return cwd / named
    usual = (
        found_in(cwd),
        user_config_path("llamasup") / "llamasup.toml",
        Path("/etc/llamasup/llamasup.toml"),
    )
    return next((file for file in usual if os.path.exists(file)), None)


def found_in(cwd: Path) -> Path:
    """The file that is used because llamasup is started in its folder."""
    return cwd / "llamasup.toml"


def load(
    file: Path | None,
    environ: Mapping[str, str] = {},
    flags: Mapping[str, object] = {},
    here: Path | None = None,
) -> Config:
    """The configuration that file, environment and flags make together, with absolute paths.

    Relative paths start at the file's folder; those of environment and flags start `here`, or else
    at the current folder. The key of a flag is dotted: `server.listen`, `models.NAME.path`, where
    NAME may have dots, too. Raises ConfigError, which says all that is wrong.
    """
    tree = _layered(file, environ, flags, here or current_folder())
    secrets.lay_keys_file(tree)
    return _fitted(tree, environ)


def keys_file(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object], here: Path
) -> Path | None:
    """`server.keys_file`, if it is set. Raises ConfigError if the configuration cannot be read."""
    return secrets.path(_layered(file, environ, flags, here), "server", "keys_file")


def files_of_keys(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object], here: Path
) -> tuple[Path, ...]:
    """The files of keys that the configuration names: they are followed like the configuration,
    even while they are wrong or missing.

    Raises ConfigError if the configuration cannot be read.
    """
    return secrets.files(_layered(file, environ, flags, here))


def _layered(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object], here: Path
) -> Tree:
    if file is None:
        tree = Tree({}, Origin("defaults", here))
    else:
        tree = Tree(toml_file.read(file), Origin(str(file), (here / file).parent))
    lay_environment(tree, environ, here, flags)
    lay_flags(tree, flags, here)
    return tree


def current_folder() -> Path:
    """The current folder, or the root if that was removed: absolute paths still work."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


def from_tables(
    tables: dict[str, Any], place: str, left_out: Mapping[tuple[str, str], object] = {}
) -> Config:
    """The configuration that these tables from `place` make alone, without other layers.

    `left_out` holds the values of keys that the tables may leave out. Raises ConfigError as `load`
    does.
    """
    origin = Origin(place, current_folder())
    tree = Tree(tables, origin)
    for key, value in left_out.items():
        if tree.get(*key) is None:
            tree.put(key, value, origin)
    return _fitted(tree, {})


def _fitted(tree: Tree, environ: Mapping[str, str]) -> Config:
    try:
        config = strict.structure(tree.values, Config)
    except cattrs.BaseValidationError as error:
        tree.refuse(refusals(error))
    tree.refuse(contradictions(tree))
    if tree.problems:
        raise ConfigError(tree.problems)
    config = secrets.with_hashes(with_absolute_paths(config, tree), tree, environ)
    if tree.problems:
        raise ConfigError(tree.problems)
    return config


def dump(config: Config) -> str:
    """The configuration as TOML; loading it gives an equal one if its paths are absolute. The keys
    of `server.keys_file` stand in it, as hashes."""
    server = attrs.evolve(config.server, keys_file="none")
    return toml_file.written(strict.unstructure(attrs.evolve(config, server=server)))

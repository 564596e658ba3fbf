"""Checks the names of models, variants and keys: which may be written, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Final

from llamasup.config.problems import Key, Refusal, Unfit
from llamasup.config.schema import variant_name
from llamasup.config.tree import Tree
from llamasup.config.wording import bare_or_quoted, shown, suggestion


def bad_names(tree: Tree) -> Iterator[Refusal]:
    """Names that cannot be names, that mean two things, or that mean nothing."""
    yield from _impossible_names(tree)
    yield from _shared_names(tree)
    yield from _unknown_models(tree)
    yield from _bad_names_of_keys(tree)


def _impossible_names(tree: Tree) -> Iterator[Refusal]:
    names: list[tuple[Key, str]] = [(("models", name), name) for name in tree.table("models")]
    names.extend((key, alias) for _, key, alias in (*_variants(tree), *_aliases(tree)))
    for key, name in names:
        if not name or name != name.strip() or not name.isprintable() or set(name) & set("\"'\\"):
            fix = "write printable characters without quotes, backslashes or spaces around them"
            yield key, Unfit(f"{shown(name)} cannot be a model's name", fix)


def _shared_names(tree: Tree) -> Iterator[Refusal]:
    """Clients may write a model's name in any case, so names must differ by more than that."""
    owners: dict[str, str] = {}
    for name in tree.table("models"):
        owner = owners.setdefault(name.casefold(), name)
        if owner != name:
            yield ("models", name), Unfit(f'"{owner}" has the same name', "rename one of them")
    own = ((name, key, name) for _, key, name in _variants(tree))
    for name, key, alias in (*own, *_aliases(tree)):
        owner = owners.setdefault(alias.casefold(), name)
        if owner != name:
            yield key, Unfit(f'"{alias}" already means "{owner}"', "choose another")


def _unknown_models(tree: Tree) -> Iterator[Refusal]:
    """The default model may be named by an alias, in any case, as clients may do. Preloaded models
    and members of groups need the model's own name.

    Not checked if there are folders with models: their names are known only after a look.
    """
    if tree.get("discover", "folders"):
        return
    models = list(tree.table("models"))
    aliases = {alias: name for name, _, alias in (*_variants(tree), *_aliases(tree))}
    askable = {name.casefold() for name in (*models, *aliases)}
    for key, name in tree.texts("server", "default_model"):
        if tree.items("endpoints"):
            break  # they may have it
        if name and name.casefold() not in askable:
            yield key, _no_such_model(name, [*models, *aliases])
    groups = [("groups", group, "members") for group in tree.table("groups")]
    for key, name in chain.from_iterable(
        tree.texts(*where) for where in (("pool", "preload"), *groups)
    ):
        if name in aliases and name not in models:
            meant = aliases[name]
            what = f"{shown(name)} is not a model's own name"
            yield key, Unfit(what, f'write "{aliases.get(meant, meant)}"')
        elif name not in models:
            yield key, _no_such_model(name, models)


def _no_such_model(name: str, known: list[str]) -> Unfit:
    fix = suggestion(name, known, most=3) if known else f"add [models.{bare_or_quoted(name)}]"
    return Unfit(f"there is no model {shown(name)}", fix)


def _aliases(tree: Tree) -> Iterator[tuple[str, Key, str]]:
    """Every alias: whose it is, the key where it is written, and the alias itself."""
    for name in tree.table("models"):
        for key, alias in tree.texts("models", name, "aliases"):
            yield name, key, alias
        for variant in tree.table("models", name, "variants"):
            for key, alias in tree.texts("models", name, "variants", variant, "aliases"):
                yield variant_name(name, variant), key, alias


def _variants(tree: Tree) -> Iterator[tuple[str, Key, str]]:
    """Every variant: its model, the key of its table, and its name."""
    for name in tree.table("models"):
        for variant in tree.table("models", name, "variants"):
            yield name, ("models", name, "variants", variant), variant_name(name, variant)


def _bad_names_of_keys(tree: Tree) -> Iterator[Refusal]:
    for name in tree.table("keys"):
        if not NAME_OF_KEY.fullmatch(name):
            fix = "write letters, digits, underscores, @ and -, 64 at most"
            yield ("keys", name), Unfit(f"{shown(name)} cannot be a key's name", fix)


NAME_OF_KEY: Final = re.compile(r"[A-Za-z0-9_@-]{1,64}")
"""Names of keys stand in logs, headers, and flags such as `--set keys.NAME.models=…`."""

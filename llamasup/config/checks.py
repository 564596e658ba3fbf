"""Checks what the type of a key cannot tell: addresses, names, keys that contradict each other.

The checks read what was written, not the finished `Config`, so one bad key does not hide others.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise

from llamasup.config.addresses import parse_address
from llamasup.config.problems import Key, Refusal, Unfit
from llamasup.config.tree import Tree
from llamasup.config.wording import bare_or_quoted, shown, suggestion


def contradictions(tree: Tree) -> Iterator[Refusal]:
    """Everything that the checks of this file refuse."""
    yield from _bad_addresses(tree)
    yield from _bad_names(tree)
    yield from _shared_names(tree)
    yield from _unknown_models(tree)
    yield from _bad_ladders(tree)
    yield from _void_arguments(tree)


def _bad_ladders(tree: Tree) -> Iterator[Refusal]:
    """Every rung must need less than the one before it."""
    place = ("ladder", "contexts")
    contexts: Sizes = [((*place, at), size) for at, size in enumerate(tree.items(*place))]
    for key, size in contexts:
        if type(size) is int and size < 1:
            yield key, Unfit(f"{size} is no context", "write a number of tokens such as 8192")
    yield from _ascents(contexts)
    for name in tree.table("models"):
        for alike in _rungs_that_differ_in_context_alone(tree, name):
            yield from _ascents(alike)


Sizes = Sequence[tuple[Key, object]]
"""Contexts as they were written, best first, each with its key."""


def _ascents(sizes: Sizes) -> Iterator[Refusal]:
    whole = [(key, size) for key, size in sizes if type(size) is int and size > 0]
    for (_, before), (key, size) in pairwise(whole):
        if size >= before:
            what = f"{size} is not smaller than {before} before it"
            yield key, Unfit(what, "write the contexts in descending order")


def _rungs_that_differ_in_context_alone(tree: Tree, model: str) -> Iterable[Sizes]:
    """Groups of rungs that differ only in their context, which must descend. With a smaller cache
    type, or fewer layers on the GPU, even a larger context may need less memory."""
    groups: dict[str, list[tuple[Key, object]]] = defaultdict(list)
    for at, rung in enumerate(tree.items("models", model, "ladder")):
        if isinstance(rung, dict):
            wanted = tree.table("models", model) | {k: v for k, v in rung.items() if v != "auto"}
            group = repr((wanted.get("cache_type", "auto"), wanted.get("gpu_layers", "auto")))
            key: Key = ("models", model, "ladder", at, "context_size")
            groups[group].append((key, wanted.get("context_size")))
    return groups.values()


def _bad_addresses(tree: Tree) -> Iterator[Refusal]:
    if tree.get("server", "listen") in ([], ()):
        yield ("server", "listen"), Unfit("this lists no address", 'write one such as ":8080"')
    for key, text in tree.texts("server", "listen"):
        try:
            parse_address(text)
        except Unfit as unfit:
            yield key, unfit
    for key, prefix in tree.texts("server", "path_prefixes"):
        if not re.fullmatch(r"(/[^/\s?#]+)+", prefix):
            what = f"{shown(prefix)} is not the beginning of a path"
            yield key, Unfit(what, 'write one such as "/llama", without a slash at its end')


def _void_arguments(tree: Tree) -> Iterator[Refusal]:
    """Arguments for something that llamasup does itself: in an engine they have no effect."""
    models = (("models", name, "extra_args") for name in tree.table("models"))
    for where in (("engine", "args"), *models):
        for key, argument in tree.texts(*where):
            if argument in _OURS:
                fix = f"write {_OURS[argument]} instead"
                yield key, Unfit(f"{argument} has no effect behind llamasup", fix)


_OURS = {"--cors-origins": "server.cors_origins", "--cors-methods": "server.cors_origins"}


def _bad_names(tree: Tree) -> Iterator[Refusal]:
    names: list[tuple[Key, str]] = [(("models", name), name) for name in tree.table("models")]
    names.extend((key, alias) for _, key, alias in _aliases(tree))
    for key, name in names:
        if not name or name != name.strip() or not name.isprintable() or set(name) & set("\"'\\"):
            fix = "write printable characters without quotes, backslashes or spaces around them"
            yield key, Unfit(f"{shown(name)} cannot be a model's name", fix)
    for name in tree.table("engine", "env"):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            what = f"{shown(name)} cannot be an environment variable's name"
            yield ("engine", "env", name), Unfit(what, "write letters, digits and underscores")


def _shared_names(tree: Tree) -> Iterator[Refusal]:
    """Clients may write a model's name in any case, so names must differ by more than that."""
    owners: dict[str, str] = {}
    for name in tree.table("models"):
        owner = owners.setdefault(name.casefold(), name)
        if owner != name:
            yield ("models", name), Unfit(f'"{owner}" has the same name', "rename one of them")
    for name, key, alias in _aliases(tree):
        owner = owners.setdefault(alias.casefold(), name)
        if owner != name:
            yield key, Unfit(f'"{alias}" already means the model "{owner}"', "choose another")


def _unknown_models(tree: Tree) -> Iterator[Refusal]:
    """The default model may be named by an alias, in any case, as clients may do. Preloaded models
    and members of groups need the model's own name.

    Not checked if there are folders with models: their names are known only after a look.
    """
    if tree.get("discover", "folders"):
        return
    models = list(tree.table("models"))
    aliases = {alias: name for name, _, alias in _aliases(tree)}
    askable = {name.casefold() for name in (*models, *aliases)}
    for key, name in tree.texts("server", "default_model"):
        if name and name.casefold() not in askable:
            yield key, _no_such_model(name, [*models, *aliases])
    groups = [("groups", group, "members") for group in tree.table("groups")]
    for key, name in chain.from_iterable(
        tree.texts(*where) for where in (("pool", "preload"), *groups)
    ):
        if name in aliases and name not in models:
            yield key, Unfit(f"{shown(name)} is an alias", f'write "{aliases[name]}"')
        elif name not in models:
            yield key, _no_such_model(name, models)


def _no_such_model(name: str, known: list[str]) -> Unfit:
    fix = suggestion(name, known, most=3) if known else f"add [models.{bare_or_quoted(name)}]"
    return Unfit(f"there is no model {shown(name)}", fix)


def _aliases(tree: Tree) -> Iterator[tuple[str, Key, str]]:
    """Every alias: its model, the key where it is written, and the alias itself."""
    for name in tree.table("models"):
        for key, alias in tree.texts("models", name, "aliases"):
            yield name, key, alias

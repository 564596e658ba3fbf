"""Checks how models are launched, and their params: `[models]`, `[engine]` and `[ladder]`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from llamasup.config.placeholders import PORT, SOCKET, holds
from llamasup.config.problems import Key, Refusal, Unfit
from llamasup.config.schema import LONGEST_PARAM
from llamasup.config.tree import Tree
from llamasup.config.wording import shown


def bad_models(tree: Tree) -> Iterator[Refusal]:
    """Keys of models that contradict each other, or that no engine could obey."""
    yield from _bad_ladders(tree)
    yield from _void_arguments(tree)
    yield from _bad_params(tree)
    yield from _unreachable_servers(tree)
    yield from _bad_variables(tree)
    yield from _bad_devices(tree)
    yield from _bad_rpc_servers(tree)


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


def _void_arguments(tree: Tree) -> Iterator[Refusal]:
    """Arguments for something that llamasup does itself: in an engine they have no effect."""
    models = (("models", name, "extra_args") for name in tree.table("models"))
    for where in (("engine", "args"), *models):
        for key, argument in tree.texts(*where):
            if argument in _OURS:
                fix = f"write {_OURS[argument]} instead"
                yield key, Unfit(f"{argument} has no effect behind llamasup", fix)


_OURS = {"--cors-origins": "server.cors_origins", "--cors-methods": "server.cors_origins"}


def _bad_params(tree: Tree) -> Iterator[Refusal]:
    """Each table has one word about a param at most; a variant's table replaces the model's."""
    for name in tree.table("models"):
        variants = tree.table("models", name, "variants")
        for where in (("models", name), *(("models", name, "variants", v) for v in variants)):
            fixed = tree.table(*where, "set_params")
            given = tree.table(*where, "default_params")
            stripped = tree.texts(*where, "strip_params")
            yield from _refused_params(where, fixed, given, stripped)


def _refused_params(
    where: tuple[str, ...],
    fixed: dict[str, Any],
    given: dict[str, Any],
    stripped: Sequence[tuple[Key, str]],
) -> Iterator[Refusal]:
    tables = (("set_params", fixed), ("default_params", given))
    written: list[tuple[Key, str]] = [((*where, key, n), n) for key, t in tables for n in t]
    for key, name in (*written, *stripped):
        if name in ("", "stream"):
            what = "clients read streams otherwise than other answers" if name else "it has no name"
            yield key, Unfit(f"{shown(name)} cannot be filtered: {what}", "remove it")
        elif len(name) > LONGEST_PARAM:
            what = f"this name has more than {LONGEST_PARAM} characters"
            yield key, Unfit(what, "write the name of a member of the request's JSON")
    for key, name in stripped:
        if name in fixed or name in given:
            what = f"{shown(name)} is stripped, and given a value"
            yield key, Unfit(what, "to replace what clients say, write it in set_params alone")
    for way in _in_both(fixed, given):
        what = "it is in set_params, too"
        yield (*where, "default_params", *way), Unfit(what, "remove it from one of them")


def _in_both(one: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The way to every value that both have. Tables in both are not one value."""
    for name in one.keys() & other.keys():
        if isinstance(one[name], dict) and isinstance(other[name], dict):
            yield from ((name, *way) for way in _in_both(one[name], other[name]))
        else:
            yield (name,)


def _unreachable_servers(tree: Tree) -> Iterator[Refusal]:
    """Servers that are not told where to listen, or are told twice."""
    for name in tree.table("models"):
        table = tree.table("models", name)
        if "command" not in table or "path" in table:
            continue
        key = ("models", name, "command")
        words = [text for _, text in tree.texts(*key)]
        if not words or not words[0]:
            yield key, Unfit("this starts no program", 'write one such as ["PROGRAM", "${PORT}"]')
            continue
        words += [text for text in tree.table(*key[:2], "env").values() if isinstance(text, str)]
        told = [one for one in (PORT, SOCKET) if holds(words, one)]
        if len(told) == 2:
            yield key, Unfit(f"this has {PORT} and {SOCKET}", "write only one of them")
        elif not told and isinstance(table["command"], list | tuple):
            what = "this does not say where to listen"
            fix = f'write "{PORT}" where the server takes its port, or "{SOCKET}"'
            yield key, Unfit(what, fix)


def _bad_variables(tree: Tree) -> Iterator[Refusal]:
    for where in (("engine", "env"), *(("models", name, "env") for name in tree.table("models"))):
        for name in tree.table(*where):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                what = f"{shown(name)} cannot be an environment variable's name"
                yield (*where, name), Unfit(what, "write letters, digits and underscores")


def _bad_devices(tree: Tree) -> Iterator[Refusal]:
    for model in tree.table("models"):
        devices = tree.texts("models", model, "devices")
        for key, name in devices:
            if not re.fullmatch(r"[A-Za-z]+[0-9]*", name):
                yield key, Unfit(f"{shown(name)} is no device", 'write names such as "CUDA1"')
            elif name == "none" and len(devices) > 1:
                yield key, Unfit('"none" stands beside other devices', "remove one of them")
        for key, argument in tree.texts("models", model, "extra_args") if devices else ():
            if argument in ("-dev", "--device"):
                yield key, Unfit(f"{argument} would replace `devices`", "remove one of them")


def _bad_rpc_servers(tree: Tree) -> Iterator[Refusal]:
    models = (("models", name, "rpc") for name in tree.table("models"))
    for where in (("engine", "rpc"), *models):
        for key, server in tree.texts(*where):
            named = _RPC_SERVER.fullmatch(server)
            if not named or not 0 < int(named[1]) <= _HIGHEST_PORT:
                what = f"{shown(server)} is not an RPC server"
                yield key, Unfit(what, 'write its host and port, such as "gpubox:50052"')


_RPC_SERVER = re.compile(r"(?:[^\s,:\[\]]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")

_HIGHEST_PORT = 65535

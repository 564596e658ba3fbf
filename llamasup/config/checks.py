"""Checks what the type of a key cannot tell: addresses, names, keys that contradict each other.

The checks read what was written, not the finished `Config`, so one bad key does not hide others.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, Final

from llamasup.config.addresses import parse_address
from llamasup.config.endpoint_checks import bad_endpoints
from llamasup.config.placeholders import PORT, SOCKET, holds
from llamasup.config.problems import Key, Refusal, Unfit
from llamasup.config.schema import LONGEST_PARAM, variant_name
from llamasup.config.tree import Tree
from llamasup.config.wording import bare_or_quoted, shown, suggestion


def contradictions(tree: Tree) -> Iterator[Refusal]:
    """Everything that the checks of this file refuse."""
    yield from _bad_addresses(tree)
    yield from _bad_certificates(tree)
    yield from _bad_names(tree)
    yield from _shared_names(tree)
    yield from _unknown_models(tree)
    yield from _bad_ladders(tree)
    yield from _void_arguments(tree)
    yield from _bad_params(tree)
    yield from _bad_names_of_keys(tree)
    yield from _unreachable_servers(tree)
    yield from _bad_devices(tree)
    yield from _bad_rpc_servers(tree)
    yield from bad_endpoints(tree)


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


def _bad_certificates(tree: Tree) -> Iterator[Refusal]:
    """A certificate is for the addresses that say https, and they need it."""
    certificate, key = ("server", "tls_certificate"), ("server", "tls_key")
    has_certificate = tree.get(*certificate) not in (None, "none")
    secure = [at for at, text in tree.texts("server", "listen") if text.startswith("https://")]
    if secure and not has_certificate:
        what = "this address needs a certificate"
        yield secure[0], Unfit(what, "write its files as server.tls_certificate and tls_key")
    if has_certificate and not secure:
        what = "no address shows this certificate"
        yield certificate, Unfit(what, 'let server.listen have one such as "https://:8443"')
    if tree.get(*key) not in (None, "none") and not has_certificate:
        yield key, Unfit("this key has no certificate", "write server.tls_certificate, too")


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


def _bad_names(tree: Tree) -> Iterator[Refusal]:
    names: list[tuple[Key, str]] = [(("models", name), name) for name in tree.table("models")]
    names.extend((key, alias) for _, key, alias in (*_variants(tree), *_aliases(tree)))
    for key, name in names:
        if not name or name != name.strip() or not name.isprintable() or set(name) & set("\"'\\"):
            fix = "write printable characters without quotes, backslashes or spaces around them"
            yield key, Unfit(f"{shown(name)} cannot be a model's name", fix)
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


def _bad_names_of_keys(tree: Tree) -> Iterator[Refusal]:
    for name in tree.table("keys"):
        if not NAME_OF_KEY.fullmatch(name):
            fix = "write letters, digits, underscores, @ and -, 64 at most"
            yield ("keys", name), Unfit(f"{shown(name)} cannot be a key's name", fix)


NAME_OF_KEY: Final = re.compile(r"[A-Za-z0-9_@-]{1,64}")
"""Names of keys stand in logs, headers, and flags such as `--set keys.NAME.models=…`."""


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

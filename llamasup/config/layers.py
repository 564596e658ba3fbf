"""The layers over the file: environment variables, and over them the flags of the command line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from llamasup.config.problems import Problem
from llamasup.config.schema import Config, ModelSettings, Params, ServerSettings, new_names
from llamasup.config.tree import Origin, Tree
from llamasup.config.wording import suggestion

_SERVICE_NAME = re.compile(r"\w+_(SERVICE_(HOST|PORT(_\w+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def lay_environment(
    tree: Tree, environ: Mapping[str, str], here: Path, flags: Mapping[str, object] = {}
) -> None:
    """Lay `LLAMASUP_<SECTION>_<KEY>` over the tree; relative paths start `here`.

    The keys of a model are `LLAMASUP_MODELS_<NAME>_<KEY>`, if the model has a table or is named in
    the `flags`. NAME is the model's name in capitals, with an underscore for every character that
    is neither a letter nor a digit. A variable that begins like a section but sets no known key is
    a problem. Any other variable is ignored, unless its name looks like a typing mistake.
    """
    flagged = (_key_of_flag(flag) for flag in flags)
    models = {*tree.table("models"), *(key[1] for key in flagged if key[0] == "models")}
    variables = _variables() | _variables_of_models(models)
    sections = sorted({f"LLAMASUP_{key[0]}_".upper() for key, _ in variables.values()})
    sections += [] if "LLAMASUP_MODELS_" in sections else ["LLAMASUP_MODELS_"]
    for name, text in sorted(environ.items()):
        place = f"environment variable {name}"
        if name in variables:
            key, kind = variables[name]
            tree.put(key, _read(text, kind), Origin(place, here))
        elif not _is_of_a_service(name, text) and (
            fix := _what_was_meant(name, variables, sections)
        ):
            tree.problems.append(Problem(place, "", "this sets no known key", fix))


def _what_was_meant(name: str, variables: _Variables, sections: Sequence[str]) -> str:
    """What to write instead; "" for a variable that is not meant for llamasup."""
    if name in (renamed := _renamed()):
        return f"it is called {renamed[name]} now"
    for section in filter(name.startswith, sections):
        known = [variable for variable in variables if variable.startswith(section)]
        return suggestion(name, known, prefix=section) if known else _HOW_TO_NAME_A_MODEL
    if not name.startswith("LLAMASUP_"):
        return ""
    near = get_close_matches(name, variables, n=1, cutoff=_A_SLIP)
    return f'did you mean "{near[0]}"?' if near else ""


_A_SLIP = 0.9
"""How alike two names must be for one to count as a mistyped other; 1 means equal."""


_HOW_TO_NAME_A_MODEL = (
    "give the model a table, [models.NAME], or set LLAMASUP_DISCOVER_CONTEXT_SIZE or"
    " LLAMASUP_DISCOVER_PARALLEL for those that folders hold"
)

_Variables = dict[str, tuple[tuple[str, ...], Any]]


def _variables() -> _Variables:
    """Every environment variable that sets a key, with that key and its type. No variable sets a
    whole table."""
    return {
        f"LLAMASUP_{section}_{key}".upper(): ((section, key), kind)
        for section, table in get_type_hints(Config).items()
        if attrs.has(table)
        for key, kind in get_type_hints(table).items()
        if not _is_table(kind)
    }


def _renamed() -> dict[str, str]:
    """The variables that had another name before, by that name."""
    return {
        f"LLAMASUP_{section}_{was}".upper(): f"LLAMASUP_{section}_{now}".upper()
        for section, table in get_type_hints(Config).items()
        if attrs.has(table)
        for was, now in new_names(table).items()
    }


def _variables_of_models(names: Collection[str]) -> _Variables:
    """The same for models with these names, but not for names that are the same in capitals."""
    capitals = Counter(map(_in_capitals, names))
    return {
        f"LLAMASUP_MODELS_{_in_capitals(name)}_{key.upper()}": (("models", name, key), kind)
        for name in names
        if capitals[_in_capitals(name)] == 1
        for kind_of_model in (ModelSettings, ServerSettings)
        for key, kind in get_type_hints(kind_of_model).items()
        if key != "ladder" and not _is_table(kind)
    }


def _is_table(kind: Any) -> bool:
    return kind is Params or get_origin(kind) is Mapping


def _in_capitals(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _is_of_a_service(name: str, text: str) -> bool:
    """Is it a variable of a service? Kubernetes sets such variables in every container.

    For a service called "llamasup-server" these are LLAMASUP_SERVER_SERVICE_HOST,
    LLAMASUP_SERVER_PORT="tcp://…", LLAMASUP_SERVER_PORT_8080_TCP_ADDR and the like.
    """
    return bool(_SERVICE_NAME.fullmatch(name) or _SERVICE_URL.match(text))


def _read(text: str, kind: Any) -> object:
    if get_origin(kind) is tuple:
        parts = (part.strip() for part in text.split(","))
        return [_read(part, get_args(kind)[0]) for part in parts if part]
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if int in (kind, *get_args(kind), *map(type, get_args(kind))):
        try:
            return int(text, 0)
        except ValueError:
            return text
    return text


def lay_flags(tree: Tree, flags: Mapping[str, object], here: Path) -> None:
    """Lay dotted keys over the tree. The NAME in `models.NAME.key` may have dots."""
    origin = Origin("command line", here)
    for flag, value in flags.items():
        tree.put(_key_of_flag(flag), value, origin)


def _key_of_flag(dotted: str) -> tuple[str, ...]:
    section, _, rest = dotted.partition(".")
    if section != "models":
        return tuple(dotted.split("."))
    name, _, last = rest.rpartition(".")
    return section, name, last

"""What lies over the file: environment variables, and over them the flags of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from llamasup.config.problems import Problem
from llamasup.config.schema import Config
from llamasup.config.tree import Origin, Tree
from llamasup.config.wording import suggestion

_SERVICE_NAME = re.compile(r"\w+_(SERVICE_(HOST|PORT(_\w+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def lay_environment(tree: Tree, environ: Mapping[str, str], here: Path) -> None:
    """Lay `LLAMASUP_<SECTION>_<KEY>` over the tree; relative paths start `here`.

    One that sets no key of its section is a problem; variables of other names are not ours.
    """
    variables = _variables()
    sections = sorted({f"LLAMASUP_{section}_".upper() for (section, _), _ in variables.values()})
    for name, text in sorted(environ.items()):
        place = f"environment variable {name}"
        if name in variables:
            key, kind = variables[name]
            tree.put(key, _read(text, kind), Origin(place, here))
        elif not _is_of_a_service(name, text):
            for section in filter(name.startswith, sections):
                known = [variable for variable in variables if variable.startswith(section)]
                fix = suggestion(name, known, prefix=section)
                tree.problems.append(Problem(place, "", "this sets no known key", fix))


def _variables() -> dict[str, tuple[tuple[str, str], Any]]:
    """Every environment variable that sets a key, with that key and its type. None sets a table."""
    return {
        f"LLAMASUP_{section}_{key}".upper(): ((section, key), kind)
        for section, table in get_type_hints(Config).items()
        if attrs.has(table)
        for key, kind in get_type_hints(table).items()
        if get_origin(kind) is not Mapping
    }


def _is_of_a_service(name: str, text: str) -> bool:
    """Is it one that Kubernetes puts into every container for every service beside it?

    A service that is called "llamasup-server" comes as LLAMASUP_SERVER_SERVICE_HOST,
    LLAMASUP_SERVER_PORT="tcp://…", LLAMASUP_SERVER_PORT_8080_TCP_ADDR and others of their kind.
    """
    return bool(_SERVICE_NAME.fullmatch(name) or _SERVICE_URL.match(text))


def _read(text: str, kind: Any) -> object:
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    choices = get_args(kind)
    if int in (kind, *choices) or {type(choice) for choice in choices} == {int}:
        try:
            return int(text, 0)
        except ValueError:
            return text
    return text


def lay_flags(tree: Tree, flags: Mapping[str, object], here: Path) -> None:
    """Lay dotted keys over the tree. What stands in `models.NAME.key` for NAME may have dots."""
    origin = Origin("flag", here)
    for dotted, value in flags.items():
        section, _, rest = dotted.partition(".")
        if section == "models":
            name, _, last = rest.rpartition(".")
            tree.put((section, name, last), value, origin)
        else:
            tree.put(tuple(dotted.split(".")), value, origin)

"""Checks what the types of `[[endpoints]]` cannot tell: names, URLs, headers, keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamasup.config.problems import Key, Refusal, Unfit
from llamasup.config.tree import Tree
from llamasup.config.urls import parse_url
from llamasup.config.wording import shown


def bad_endpoints(tree: Tree) -> Iterator[Refusal]:
    """All that is wrong with the entries, in their order."""
    names: set[str] = set()
    for at, entry in enumerate(tree.items("endpoints")):
        if not isinstance(entry, dict):
            continue
        place: Key = ("endpoints", at)
        if isinstance(name := entry.get("name"), str):
            yield from _bad_name((*place, "name"), name, names)
            names.add(name)
        if isinstance(url := entry.get("url"), str):
            try:
                parse_url(url)
            except Unfit as unfit:
                yield (*place, "url"), unfit
        ways = [way for way in ("key", "key_env", "key_file") if entry.get(way)]
        if len(ways) > 1:
            yield (*place, ways[1]), Unfit(f"there is {ways[0]}, too", "keep one of them")
        yield from _bad_headers((*place, "headers"), entry.get("headers"))


def _bad_name(key: Key, name: str, others: set[str]) -> Iterator[Refusal]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        fix = "write letters, digits, dots, hyphens and underscores"
        yield key, Unfit(f"{shown(name)} cannot be an endpoint's name", fix)
    elif name in others:
        yield key, Unfit(f'"{name}" is there twice', "rename one of them")


def _bad_headers(place: Key, headers: object) -> Iterator[Refusal]:
    for name, value in headers.items() if isinstance(headers, dict) else ():
        key = (*place, name)
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            yield (
                key,
                Unfit(f"{shown(name)} cannot be a header's name", "write letters and hyphens"),
            )
        elif name.lower() in _WRITTEN_BY_US:
            yield key, Unfit(f"llamasup writes {name} itself", "leave it out")
        if isinstance(value, str) and not (value.isprintable() and value.isascii()):
            yield key, Unfit("no header can hold this", "write printable ASCII characters")


_WRITTEN_BY_US = {
    *("connection", "content-length", "expect", "host", "transfer-encoding", "upgrade", "via"),
    "x-request-id",
}

"""What instances elsewhere say about themselves, read strictly. Pure.

It comes from outside: what does not look as expected counts as not said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

import msgspec
from attrs import frozen

from llamasup.config.schema import EndpointSettings
from llamasup.endpoints.balance import Where

_MOST_MODELS: Final = 4096
_LONGEST_NAME: Final = 1024
_MOST_SLOTS: Final = 4096


@frozen
class Offer:
    """One model that an instance has."""

    theirs: str
    """Its name there."""

    slots: int | None = None
    """How many requests for this model it works on at once; None if only the whole instance has a
    number."""

    taken: int = 0
    where: Where = Where.LOADED
    cost: int = 0
    """How much would be unloaded there for this model, in bytes."""

    origins: frozenset[str] = frozenset()
    """The llamasups that have it, where the instance is one."""

    over: frozenset[str] = frozenset()
    """The llamasups behind the instance that a request may go over."""


class _Id(msgspec.Struct):
    id: str


class _Listing(msgspec.Struct):
    data: list[_Id]


class _Props(msgspec.Struct):
    total_slots: int


class _Offered(msgspec.Struct):
    where: str = "loaded"
    slots: int = 1
    taken: int = 0
    cost: int = 0
    origins: list[str] = []
    over: list[str] = []


class Offers(msgspec.Struct):
    """What a llamasup tells other llamasups: `/api/offers`."""

    instance: str
    version: int
    models: dict[str, _Offered]
    draining: bool = False


def model_ids(body: bytes) -> list[str] | None:
    """The models of a `/v1/models`; None if this is no such listing."""
    try:
        listing = msgspec.json.decode(body, type=_Listing)
    except msgspec.MsgspecError:
        return None
    return [entry.id for entry in listing.data[:_MOST_MODELS] if _is_name(entry.id)]


def slots_in_props(body: bytes) -> int | None:
    """The slots that a llama-server's `/props` tells."""
    try:
        slots = msgspec.json.decode(body, type=_Props).total_slots
    except msgspec.MsgspecError:
        return None
    return slots if 0 < slots <= _MOST_SLOTS else None


def slots_in_list(body: bytes) -> int | None:
    """The slots that a llama-server's `/slots` lists."""
    try:
        slots = len(msgspec.json.decode(body, type=list[msgspec.Raw]))
    except msgspec.MsgspecError:
        return None
    return slots if 0 < slots <= _MOST_SLOTS else None


def offers(body: bytes) -> Offers | None:
    """What a llamasup offers; None if this is none."""
    try:
        return msgspec.json.decode(body, type=Offers)
    except msgspec.MsgspecError:
        return None


def listed(ids: Sequence[str], settings: EndpointSettings) -> Iterator[tuple[str, Offer]]:
    """The models under the names that they have here."""
    for theirs in ids:
        if (name := _name_here(theirs, settings)) is not None:
            yield name, Offer(theirs)


def told(offers: Offers, settings: EndpointSettings, ourselves: str) -> Iterator[tuple[str, Offer]]:
    """The models of another llamasup, but not those that it only has from us."""
    known = {where.name.lower(): where for where in Where}
    for theirs, offered in list(offers.models.items())[:_MOST_MODELS]:
        name = _name_here(theirs, settings)
        origins = frozenset(offered.origins)
        if name is None or origins == {ourselves}:
            continue
        yield (
            name,
            Offer(
                theirs,
                min(max(offered.slots, 0), _MOST_SLOTS),
                max(offered.taken, 0),
                known.get(offered.where, Where.CANNOT),
                max(offered.cost, 0),
                origins - {ourselves},
                frozenset(offered.over),
            ),
        )


def _name_here(theirs: str, settings: EndpointSettings) -> str | None:
    """The name under which a model is offered here; None if it is not.

    A file's name counts without its folder and without `.gguf`, as for models of our own.
    """
    if not _is_name(theirs):
        return None
    short = theirs.rpartition("/")[2] if theirs.startswith("/") else theirs
    short = short.removesuffix(".gguf")
    is_meant = _matcher(settings.models)
    if not (is_meant(theirs) or is_meant(short)):
        return None
    renamed: Mapping[str, str] = settings.rename
    return renamed.get(theirs) or renamed.get(short) or short or None


@lru_cache
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Says whether one of these patterns matches a name: an instance may list thousands."""
    return re.compile("|".join(map(translate, patterns)) or "(?!)").match


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable()

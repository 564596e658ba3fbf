"""What the operator says about the params of requests, whatever their clients say. Pure.

`set_params`, `default_params` and `strip_params` become one rule for each member of a request's
JSON object. A table is not a value (unless it is empty), but a rule for each of its members: what
clients say beside them stays. A variant's rules replace those of its model, member by member.

JSON is edited, not decoded: other values stay as they were written, such as 1e400 or an integer of
twenty digits. Names are compared as what they mean, not as they are written, and of two members
with the same name the later one counts, as it does for engines: so no spelling evades a rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
from attrs import frozen
from msgspec import Raw

from llamasup.config.schema import Offer, Params, VariantSettings
from llamasup.errors import ClientError


class Rule(Protocol):
    """What becomes of one member."""

    @property
    def overrules(self) -> bool:
        """Does it count more than a client's word?"""

    def applied(self, given: Raw | None) -> Raw | None:
        """The value that replaces the `given` one; None means that there is none.

        Raises msgspec.DecodeError or UnicodeDecodeError if the given one is not JSON.
        """


@frozen
class Put:
    """This value, whatever the client says."""

    value: Raw
    overrules = True

    def applied(self, given: Raw | None) -> Raw | None:
        """See `Rule.applied`."""
        return self.value


@frozen
class Fill:
    """This value if the client gives none. Null is none: engines read it so."""

    value: Raw
    overrules = False

    def applied(self, given: Raw | None) -> Raw | None:
        """See `Rule.applied`."""
        return self.value if given is None or bytes(given) == b"null" else given


@frozen
class Drop:
    """No value."""

    overrules = True

    def applied(self, given: Raw | None) -> Raw | None:
        """See `Rule.applied`."""
        return None


class Filter:
    """An object whose members have rules: the body of a request, or a value in it."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = rules
        self.overrules = any(rule.overrules for rule in rules.values())
        """See `Rule.overrules`."""

    def applied(self, given: Raw | None) -> Raw | None:
        """See `Rule.applied`. What is no object is replaced, if a rule counts more than it does.

        Raises ClientError for an object that would take long to read.
        """
        if given is not None and (text := bytes(given)).startswith(b"{"):
            if len(text) > _LONGEST_OBJECT:
                most = f"{_LONGEST_OBJECT >> 10} KiB"
                raise ClientError(f"an object in which the operator sets params is over {most}")
            return self.edited(given)
        if given is None or self.overrules or bytes(given) == b"null":
            return self.edited(_EMPTY)
        return given

    def edited(self, document: Raw) -> Raw:
        """This object under the rules; the very same if they change nothing.

        Raises msgspec.DecodeError or UnicodeDecodeError if it is none.
        """
        members = _members(document)
        if not (changes := self.changes(members)):
            return document
        for name, value in changes.items():
            if value is None:
                del members[name]
            else:
                members[name] = value
        return Raw(_json(members))

    def changes(self, given: Mapping[str, Raw]) -> dict[str, Raw | None]:
        """What replaces members of an object that has these, of those that rules name; None for one
        that is to be removed. Raises what `edited` raises."""
        changes = {}
        for name, rule in self.rules.items():
            value = given.get(name)
            if (after := rule.applied(value)) is not value:
                changes[name] = after
        return changes


_LONGEST_OBJECT = 256 << 10
"""Bytes. Reading so much takes a millisecond at worst, in addition to the whole body."""

_EMPTY = Raw(b"{}")
_json = msgspec.json.encode
_members: Callable[[Raw], dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw]).decode


def filter_of(model: Offer, variant: VariantSettings | None = None) -> Filter | None:
    """The filter for requests to a model or a variant of it; None if nothing is to be filtered."""
    rules: dict[str, Rule] = {}
    for said in (model, variant):
        if said is not None:
            rules |= dict.fromkeys(said.strip_params, Drop())
            rules = _laid(rules, said.set_params, Put)
            rules = _laid(rules, said.default_params, Fill)
    return Filter(rules) if rules else None


def _laid(
    below: Mapping[str, Rule], params: Params, rule: Callable[[Raw], Rule]
) -> dict[str, Rule]:
    """These rules, and over them one for every value in `params`."""
    rules = dict(below)
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            before = rules.get(name)
            inner = before.rules if isinstance(before, Filter) else {}
            rules[name] = Filter(_laid(inner, Params(value), rule))
        else:
            rules[name] = rule(Raw(json.dumps(value, ensure_ascii=False).encode()))
    return rules

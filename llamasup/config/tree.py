"""All layers of the configuration on top of each other, as written, with each value's origin.

Values may still have the wrong shape, so reading from the tree never fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import frozen

from llamasup.config.problems import Key, Problem, Refusal, Unfit
from llamasup.config.wording import dotted


@frozen
class Origin:
    """Where a value was written, and the folder at which its relative paths start."""

    place: str
    folder: Path


class Tree:
    """The values, and the problems that were found with them."""

    def __init__(self, values: dict[str, Any], origin: Origin) -> None:
        self.values = values
        self.problems: list[Problem] = []
        self._origins: dict[Key, Origin] = {(): origin}

    def put(self, key: tuple[str, ...], value: object, origin: Origin) -> None:
        """Set a value, over what was there. It is a problem if a key on the way is not a table."""
        table = self.values
        for depth, name in enumerate(key[:-1], start=1):
            if name not in table:
                table[name] = {}
                self._origins[key[:depth]] = origin
            table = table[name]
            if not isinstance(table, dict):
                what = f"there is no place for it, {dotted(key[:depth])} is not a table"
                self.problems.append(
                    Problem(origin.place, dotted(key), what, "write a table there")
                )
                return
        table[key[-1]] = value
        self._origins[key] = origin

    def refuse(self, refusals: Iterable[Refusal]) -> None:
        """Turn refusals into problems: the tree knows where the values were written."""
        for key, unfit in refusals:
            place = self.origin(key).place
            self.problems.append(Problem(place, dotted(key), unfit.what, unfit.fix))

    def refuse_at(self, origin: Origin, key: Key, unfit: Unfit) -> None:
        """Note a problem with something that is not in the tree."""
        self.problems.append(Problem(origin.place, dotted(key), unfit.what, unfit.fix))

    def origin(self, key: Key) -> Origin:
        """Where a value was written; if it was not, where the innermost table around it was."""
        while key not in self._origins:
            key = key[:-1]
        return self._origins[key]

    def get(self, *key: str) -> Any:
        """What was written, of any type; None if nothing was."""
        value: Any = self.values
        for name in key:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def table(self, *key: str) -> dict[str, Any]:
        """The table that was written, empty if none was."""
        value = self.get(*key)
        return value if isinstance(value, dict) else {}

    def items(self, *key: str) -> list[Any] | tuple[Any, ...]:
        """The list that was written, empty if none was."""
        value = self.get(*key)
        return value if isinstance(value, list | tuple) else []

    def texts(self, *key: str) -> list[tuple[Key, str]]:
        """The strings written under a key, one or many, each with its own full key."""
        value = self.get(*key)
        if isinstance(value, str):
            return [(key, value)]
        written = enumerate(self.items(*key))
        return [((*key, at), text) for at, text in written if isinstance(text, str)]

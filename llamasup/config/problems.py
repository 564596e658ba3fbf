"""What can be wrong with a configuration, as values: a refusal, a problem, all problems at once.

A key refuses a value with `Unfit`, without knowing where it was written. With the place added, this
becomes a `Problem`. One `ConfigError` holds all problems, so a file can be corrected in one go.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from llamasup.errors import OperatorError

Key = tuple[str | int, ...]
"""The path of a value: names of tables and keys, positions in lists."""


class Unfit(ValueError):
    """A key refuses a value: what is wrong with it, and what to write instead."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what = what
        self.fix = fix


Refusal = tuple[Key, Unfit]
"""A key, and why it refuses what was written there."""


@frozen
class Problem:
    """One thing that is wrong: where it was written, under which key, and what would be right."""

    place: str
    key: str
    what: str
    fix: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.place, self.key, f"{self.what}; {self.fix}")))


class ConfigError(OperatorError):
    """The configuration cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

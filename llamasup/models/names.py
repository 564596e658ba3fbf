"""The names that clients may ask for, and the model that each one means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from heapq import nlargest

from attrs import frozen

from llamasup.config.schema import ModelSettings
from llamasup.errors import ClientError, ModelNotFound
from llamasup.models.discover import friendly_names

_LONGEST_SHOWN = 100
"""Characters of an unknown name that a refusal repeats: it may have megabytes."""

_MOST_LISTED = 20
"""The most names in a refusal: folders may hold thousands of models."""

_LONGEST_NAME = 1024
"""Characters. No file has a longer name, and only folding ten million takes ten milliseconds."""

_MOST_COMPARED = 4096
_MOST_NEAR = 3
_ALIKE = 0.45
"""Two names are alike if they share at least this part of their pairs of letters."""

_BITS = 509


@frozen
class Choice:
    """What a name means."""

    model: str
    """The model that answers."""

    name: str
    """The name under which this is listed."""


class Names:
    """All names by which models can be asked for. Building this takes some 20 ms for 2,000 models.

    Names and aliases come first, in upper or lower case. If there is none, the name of a file also
    counts, with or without its quantization, if only one model has it.
    """

    def __init__(self, models: Mapping[str, ModelSettings]) -> None:
        self.models = list(models)
        self._choices = {name: Choice(name, name) for name in models}
        self._exact = {name.casefold(): choice for name, choice in self._choices.items()}
        for name, settings in models.items():
            own = self._choices[name]
            self._exact |= {alias.casefold(): own for alias in settings.aliases}
        self._friendly = {
            name: self._choices[model] for name, model in _unambiguous(models).items()
        }
        # This compares two thousand names in half a millisecond; difflib takes eighty.
        self._pairs = {name: _pairs(name) for name in [*self._exact][:_MOST_COMPARED]}

    def choose(self, asked: str | None, default: str = "") -> Choice:
        """What `asked` means; without a name the `default`, or the only one there is.

        Raises ModelNotFound with near matches, or ClientError with the names to choose from.
        """
        if wanted := asked or default:
            choice = self.find(wanted)
            if choice is None:
                shown = wanted[:_LONGEST_SHOWN]
                raise ModelNotFound(f'there is no model "{shown}"; {self._suggestion(shown)}')
            return choice
        if len(self.models) == 1:
            return self._choices[self.models[0]]
        raise ClientError(f'the request names no model; add "model", one of: {self._listing()}')

    def find(self, asked: str) -> Choice | None:
        """What has this name; None if there is none, or more than one."""
        if len(asked) > _LONGEST_NAME:
            return None
        folded = asked.casefold()
        return (
            self._exact.get(folded)
            or self._friendly.get(folded)
            or self._friendly.get(folded.removesuffix(".gguf"))
        )

    def near(self, asked: str) -> list[str]:
        """Similar names, the most similar first."""
        pairs = _pairs(asked[:_LONGEST_SHOWN].casefold())
        size = pairs.bit_count()
        alike = (
            (2 * (pairs & other).bit_count() / (size + other.bit_count()), name)
            for name, other in self._pairs.items()
        )
        nearest = nlargest(_MOST_NEAR, alike)
        return [self._spelled(name) for likeness, name in nearest if likeness >= _ALIKE]

    def _suggestion(self, asked: str) -> str:
        if near := self.near(asked):
            return "did you mean " + " or ".join(f'"{name}"' for name in near) + "?"
        return f"there are: {self._listing()}"

    def _listing(self) -> str:
        listed = ", ".join(f'"{name}"' for name in self.models[:_MOST_LISTED])
        more = len(self.models) - _MOST_LISTED
        return (f"{listed} and {more} more" if more > 0 else listed) or "none at all"

    def _spelled(self, folded: str) -> str:
        name = self._exact[folded].name
        return name if name.casefold() == folded else folded


def _unambiguous(models: Mapping[str, ModelSettings]) -> dict[str, str]:
    meant: dict[str, set[str]] = defaultdict(set)
    for model, settings in models.items():
        for name in (model, *friendly_names(model, settings.path)):
            meant[name.casefold()].add(model)
    return {name: min(those) for name, those in meant.items() if len(those) == 1}


def _pairs(name: str) -> int:
    """The pairs of neighbouring letters in a name, as bits; its ends count as letters."""
    bits = 0
    for first, second in zip(f"^{name}", f"{name}$", strict=True):
        bits |= 1 << (ord(first) * 31 + ord(second)) % _BITS
    return bits

"""The names that clients may ask for, and the model that each one means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from heapq import nlargest
from urllib.parse import unquote

from attrs import frozen

from llamasup.config.schema import AnyModel, ModelSettings, variant_name
from llamasup.errors import ModelNotFound, ModelNotNamed
from llamasup.models.discover import friendly_names
from llamasup.models.params import Filter, filter_of

_LONGEST_SHOWN = 100
"""Characters of an unknown name that a refusal repeats: it may have megabytes."""

_MOST_LISTED = 20
"""The most names in a refusal: folders may hold thousands of models."""

_LONGEST_NAME = 1024
"""Characters. No file has a longer name, and only folding ten million takes ten milliseconds."""

_MOST_PREFIXES = 3
"""Prefixes that a name may have: `openrouter/meta-llama/…` has two."""

_MOST_PARTS = 8
"""Parts of a path that a model's name may take up."""

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
    """The name under which this is listed: the model's, or that of a variant of it."""

    aliases: tuple[str, ...] = ()

    filter: Filter | None = None
    """What becomes of the params of its requests."""


class Names:
    """All names by which models can be asked for. Building this takes some 20 ms for 2,000 models.

    Names and aliases come first, in upper or lower case. If there is none, the name of a file also
    counts, with or without its quantization, if only one model has it; and only then a name with a
    tag or a provider's prefix, as some clients write it (`openai/qwen3:latest`).
    """

    def __init__(self, models: Mapping[str, AnyModel]) -> None:
        choices = list(_choices(models))
        self.listed = {
            choice.name: choice for choice in choices if not models[choice.model].unlisted
        }
        """What is listed, and may be named in a refusal: each model, and after it its variants."""

        self._models = {choice.name: choice for choice in choices if choice.name in models}
        # A model's own name comes before a variant's: folders may hold any name.
        self._exact = {
            name.casefold(): choice
            for choice in (*choices, *self._models.values())
            for name in (choice.name, *choice.aliases)
        }
        self._friendly = {name: self._models[model] for name, model in _unambiguous(models).items()}
        # This compares two thousand names in half a millisecond; difflib takes eighty.
        listed = [name for name, choice in self._exact.items() if choice.name in self.listed]
        self._pairs = {name: _pairs(name) for name in listed[:_MOST_COMPARED]}

    def choose(self, asked: str | None, default: str = "") -> Choice:
        """What `asked` means; without a name the `default`, or the only one there is.

        Raises ModelNotFound with near matches, or ModelNotNamed with the names to choose from.
        """
        if wanted := asked or default:
            choice = self.find(wanted)
            if choice is None:
                shown = wanted[:_LONGEST_SHOWN]
                raise ModelNotFound(f'there is no model "{shown}"; {self._suggestion(shown)}')
            return choice
        if len(self._models) == 1:
            return next(iter(self._models.values()))
        raise ModelNotNamed(f'the request names no model; add "model", one of: {self._listing()}')

    def find(self, asked: str) -> Choice | None:
        """What has this name; None if there is none, or more than one."""
        if len(asked) > _LONGEST_NAME:
            return None
        folded = asked.casefold()
        found = self._called(folded)
        for _ in range(_MOST_PREFIXES):
            if found or "/" not in folded:
                break
            folded = folded.partition("/")[2]
            found = self._called(folded)
        return found

    def beginning(self, path: str) -> tuple[Choice, str] | None:
        """What a path, as a client sent it, begins with, and the part after that name. Names may
        have slashes; the longest one counts. None if it begins with none.
        """
        parts = path.split("/")
        for number in range(min(len(parts), _MOST_PARTS), 0, -1):
            name = unquote("/".join(parts[:number]))
            if len(name) <= _LONGEST_NAME and (choice := self._called(name.casefold())):
                return choice, path[len("/".join(parts[:number])) :]
        return None

    def _called(self, folded: str) -> Choice | None:
        for ending in ("", ".gguf", ":latest"):
            name = folded.removesuffix(ending)
            if choice := self._exact.get(name) or self._friendly.get(name):
                return choice
        return None

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
        listed = ", ".join(f'"{name}"' for name in [*self.listed][:_MOST_LISTED])
        more = len(self.listed) - _MOST_LISTED
        return (f"{listed} and {more} more" if more > 0 else listed) or "none at all"

    def _spelled(self, folded: str) -> str:
        name = self._exact[folded].name
        return name if name.casefold() == folded else folded


def _choices(models: Mapping[str, AnyModel]) -> Iterator[Choice]:
    for model, settings in models.items():
        yield Choice(model, model, settings.aliases, filter_of(settings))
        for variant, said in settings.variants.items():
            name = variant_name(model, variant)
            yield Choice(model, name, said.aliases, filter_of(settings, said))


def _unambiguous(models: Mapping[str, AnyModel]) -> dict[str, str]:
    meant: dict[str, set[str]] = defaultdict(set)
    for model, settings in models.items():
        files = friendly_names(model, settings.path) if isinstance(settings, ModelSettings) else ()
        for name in (model, *files):
            meant[name.casefold()].add(model)
    return {name: min(those) for name, those in meant.items() if len(those) == 1}


def _pairs(name: str) -> int:
    """The pairs of neighbouring letters in a name, as bits; its ends count as letters."""
    bits = 0
    for first, second in zip(f"^{name}", f"{name}$", strict=True):
        bits |= 1 << (ord(first) * 31 + ord(second)) % _BITS
    return bits

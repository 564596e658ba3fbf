"""The names that clients may ask for, and the model that each one means."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache

from llamasup.config.schema import ModelSettings
from llamasup.errors import ClientError, ModelNotFound

_LONGEST_SHOWN = 100
"""Characters of a name that is not there: to compare megabytes with every model takes seconds."""

_MOST_LISTED = 20
"""Names in a refusal: folders may hold thousands of models."""


class Catalog:
    """Every model under its name and its aliases, looked up without regard to case."""

    def __init__(self, models: Mapping[str, ModelSettings], default: str = "") -> None:
        self._default = default
        self.adopt(models)

    def adopt(self, models: Mapping[str, ModelSettings]) -> None:
        """From now on these are the models, and no others."""
        self._models = {name.casefold(): name for name in models}
        for name, settings in models.items():
            self._models |= {alias.casefold(): name for alias in settings.aliases}
        self._names = list(models)
        # Among 2,000 names it takes 40 ms, and a client with a wrong one asks again and again.
        self._suggestion = lru_cache(maxsize=64)(self._suggest)

    def choose(self, asked: str | None) -> str:
        """The model that `asked` means; without a name the default, or the only one there is.

        Raises ModelNotFound with near matches, or ClientError with the names to choose from.
        """
        if wanted := asked or self._default:
            model = self._models.get(wanted.casefold())
            if model is None:
                shown = wanted[:_LONGEST_SHOWN]
                raise ModelNotFound(f'there is no model "{shown}"; {self._suggestion(shown)}')
            return model
        if len(self._names) == 1:
            return self._names[0]
        raise ClientError(f'the request names no model; add "model", one of: {self._listing()}')

    def _suggest(self, asked: str) -> str:
        near = get_close_matches(asked.casefold(), self._models, n=3, cutoff=0.5)
        if near:
            return "did you mean " + " or ".join(f'"{self._spelled(name)}"' for name in near) + "?"
        return f"there are: {self._listing()}"

    def _spelled(self, folded: str) -> str:
        name = self._models[folded]
        return name if name.casefold() == folded else folded

    def _listing(self) -> str:
        listed = ", ".join(f'"{name}"' for name in self._names[:_MOST_LISTED])
        more = len(self._names) - _MOST_LISTED
        return (f"{listed} and {more} more" if more > 0 else listed) or "none at all"

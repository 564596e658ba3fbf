"""Which models there are now: those of the configuration, and those that its folders hold.

What is configured wins: a file that it names is offered under that name only, and its names and
aliases are taken before any file gets one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from llamasup.config.schema import Config, ModelSettings
from llamasup.models.discover import Discovered, Found, models_in, scan


@frozen
class Look:
    """What one look at the shelf found."""

    models: Mapping[str, ModelSettings]
    """Everything that can be asked for, the configured models first."""

    found: Mapping[Path, int]
    """How many models are in each folder that could be read."""

    unreadable: Mapping[Path, str]
    """Why the others could not."""


class Shelf:
    """The models of a configuration and of its folders."""

    def __init__(self, config: Config) -> None:
        self._configured = config.models
        self._folders = config.discover.folders
        self._found: dict[Path, list[Found]] = {}

    def of(self, config: Config) -> Shelf:
        """Another configuration's, which remembers what was found in the folders of both."""
        shelf = Shelf(config)
        shelf._found = dict(self._found)
        return shelf

    def look(self) -> Look:
        """Look through the folders, which takes as long as the disks do: meant for a thread."""
        files: list[Found] = []
        unreadable: dict[Path, str] = {}
        seen: set[tuple[int, int]] = set()
        for folder in self._folders:
            try:
                self._found[folder] = scan(folder, seen)
            except OSError as error:
                unreadable[folder] = error.strerror or str(error)
                if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                    self._found.pop(folder, None)
            # A disk that fails for a moment, or is asked over a network, takes no model away.
            files += self._found.get(folder, [])
        discovered = models_in(files, names_and_aliases(self._configured))
        return Look(
            models={**self._configured, **self._offered(discovered)},
            found={
                folder: sum(model.path.is_relative_to(folder) for model in discovered.values())
                for folder in self._folders
                if folder not in unreadable
            },
            unreadable=unreadable,
        )

    def _offered(self, discovered: Mapping[str, Discovered]) -> Mapping[str, ModelSettings]:
        """Those whose file no configured model has, whatever it is called there."""
        own = {_identity(settings.path) for settings in self._configured.values()} - {None}
        return {
            name: ModelSettings(path=model.path, mmproj=model.mmproj or "none")
            for name, model in discovered.items()
            if not own or _identity(model.path) not in own
        }


def names_and_aliases(models: Mapping[str, ModelSettings]) -> list[str]:
    """Everything that these models may be asked for by."""
    return [name for model, settings in models.items() for name in (model, *settings.aliases)]


def _identity(file: Path) -> tuple[int, int] | None:
    """The same for all links to one file; None if there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino

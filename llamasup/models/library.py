"""Which models exist now: those of the configuration, and those in its folders.

The configuration comes first: a file that it names is offered under that name only, and files found
in folders cannot get its names and aliases.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from attrs import field, frozen

from llamasup import threads
from llamasup.config.schema import AnyModel, Config, ModelSettings
from llamasup.models.discover import Discovered, Found, each_once, models_in
from llamasup.models.names import Names
from llamasup.models.scan import scan

PATIENCE: Final = 5.0
"""Seconds that a look waits for a disk. A later look uses the answer of a slower disk."""


@frozen
class Look:
    """What one look at the library found."""

    models: Mapping[str, AnyModel]
    """All models that clients can ask for, the configured ones first."""

    found: Mapping[Path, int]
    """How many models are in each folder that could be read."""

    unreadable: Mapping[Path, str]
    """Why the other folders could not be read. The models that they held before are still
    offered."""

    names: Names = field(init=False, eq=False, repr=False)
    """The names by which clients can ask for them."""

    @names.default
    def _all_names(self) -> Names:
        return Names(self.models)


Identity = tuple[int, int]


class Library:
    """The models of a configuration and of its folders."""

    def __init__(self, config: Config) -> None:
        self._configured = config.models
        self._discover = config.discover
        self._found: dict[Path, list[Found]] = {}
        self._own: frozenset[Identity] = frozenset()
        """The identities of the configured models' files, as they were seen last."""

        self._offered_before: Mapping[str, ModelSettings] = {}
        self._disks: dict[object, threads.Lane] = defaultdict(threads.Lane)
        """One thread for each folder, and one for the files of the configured models."""

    def of(self, config: Config) -> Library:
        """The library of another configuration. What was found in folders of both is kept."""
        library = Library(config)
        library._found = self._found
        library._disks = self._disks
        return library

    async def look(self) -> Look:
        """Look through the folders, each in a thread of its own, for `PATIENCE` at most.

        When this is cancelled, or that time is over, threads that hang are left behind.
        """
        unreadable: dict[Path, str] = {}
        async with trio.open_nursery() as nursery:
            for folder in self._discover.folders:
                nursery.start_soon(self._look_through, folder, unreadable)
            nursery.start_soon(self._look_at_own)
        try:
            return await threads.run(self._seen, unreadable)
        except OSError:  # no thread can be started, so other tasks have to wait
            return self._seen(unreadable)

    def _seen(self, unreadable: Mapping[Path, str]) -> Look:
        """Make models of what was found: some 100 ms of computing for 2,000 files."""
        discovered = models_in(
            each_once(self._found.get(folder, []) for folder in self._discover.folders),
            names_and_aliases(self._configured),
        )
        return Look(
            models={**self._configured, **self._offered(discovered)},
            found={
                folder: sum(model.path.is_relative_to(folder) for model in discovered.values())
                for folder in self._discover.folders
                if folder not in unreadable
            },
            unreadable={
                folder: unreadable[folder]
                for folder in self._discover.folders
                if folder in unreadable
            },
        )

    async def _look_through(self, folder: Path, unreadable: dict[Path, str]) -> None:
        def look() -> None:
            self._found[folder] = scan(folder)  # kept even if this call is not waited for any more

        try:
            await self._disks[folder].run(look, patience=PATIENCE)
        except OSError as error:
            # A disk may fail for a moment, or be on a network: its models stay.
            unreadable[folder] = error.strerror or str(error)
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                self._found.pop(folder, None)

    async def _look_at_own(self) -> None:
        """Look at the configured files: a file may have several names, and its disk may hang,
        too."""
        if self._configured and self._discover.folders:
            models = self._configured.values()
            paths = [model.path for model in models if isinstance(model, ModelSettings)]
            with suppress(OSError):
                self._own = await self._disks[Library].run(_identities, paths, patience=PATIENCE)

    def _offered(self, discovered: Mapping[str, Discovered]) -> Mapping[str, ModelSettings]:
        """The models whose file no configured model has, under whatever path."""
        offered = {
            name: ModelSettings(
                path=model.path,
                mmproj=model.mmproj or "none",
                context_size=self._discover.context_size,
                parallel=self._discover.parallel,
            )
            for name, model in discovered.items()
            if model.identity not in self._own
        }
        # Unchanged settings stay the same objects, so that comparing thousands takes no time.
        known = self._offered_before
        self._offered_before = {
            name: known[name] if known.get(name) == settings else settings
            for name, settings in offered.items()
        }
        return self._offered_before


def names_and_aliases(models: Mapping[str, AnyModel]) -> list[str]:
    """All names by which clients can ask for these models."""
    return [name for model, settings in models.items() for name in (model, *settings.aliases)]


def _identities(files: Iterable[Path]) -> frozenset[Identity]:
    """The file's identity, the same for all links to it; nothing if there is no such file."""
    found = set()
    for file in files:
        with suppress(OSError):
            status = os.stat(file)
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)

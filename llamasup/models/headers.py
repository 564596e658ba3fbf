"""The headers of model files, read once for as long as a file stays as it is.

A header takes tens of milliseconds, and there may be thousands. So a listing of models, which needs
only their profiles, reads just for a moment; the next listing reads on. A disk that does not answer
blocks only its own threads, and while it hangs, what was known before counts.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from llamasup import threads
from llamasup.models.discover import parts_of
from llamasup.models.facts import Facts
from llamasup.models.gguf import (
    BadModelFile,
    BrokenModelFile,
    Header,
    header_of,
    joined,
    text_of,
)
from llamasup.models.glances import seen
from llamasup.models.profile import Profile, profile_of

PATIENCE: Final = 5.0
"""Seconds for a disk. A sleeping disk wakes up in less; one that hangs needs more than any
limit."""

READING: Final = 0.1
"""Seconds for which one listing may read the headers of new models."""

LISTING_PATIENCE: Final = 1.0
"""Seconds after which a listing goes on without them."""

_MOST_THREADS: Final = 4


@frozen
class Reading:
    """What a look into a model's files has found."""

    header: Header | None = None
    """The header of all parts; None if it is broken, or only engines understand it."""

    size: int = 0
    defect: str = ""
    """Why no engine can load the model; "" if one may be able to."""


class Headers:
    """What is known about the files that were asked for."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[object, Reading]] = {}
        self._profiles: dict[Path, tuple[object, Profile]] = {}
        """Kept apart, because whole headers are large and a listing keeps none."""

        self._lane = threads.Lane(_MOST_THREADS)
        self._listing = threads.Lane()

    async def of(self, path: Path) -> Reading:
        """What is in the model that begins with this file; what was known, if its disk hangs.

        If this is cancelled, nothing is remembered.
        """
        return await seen((Headers, path), lambda: self._of(path))

    async def _of(self, path: Path) -> Reading:
        try:
            return await self._lane.run(self._look, path, patience=PATIENCE, place=path.parent)
        except TimeoutError as error:
            _, known = self._known.get(path, (None, None))
            return known or Reading(defect=f"{path}: {error.strerror}")
        except OSError as error:
            # This is not remembered: the reason may be the disk, or a want of descriptors.
            return Reading(defect=f"{error.filename or path}: {error.strerror}")

    def _look(self, path: Path) -> Reading:
        now = stamp(parts_of(path))
        then, reading = self._known.get(path, (None, None))
        if reading is None or then != now:
            reading = _read(path)
            self._known[path] = now, reading
        return reading

    async def facts(self, files: Sequence[Path]) -> Mapping[Path, Facts]:
        """The facts of these models. See `profiles`; a file that cannot be read is left out."""
        profiles = await self.profiles(files)
        return {file: known.facts for file, known in profiles.items() if known.facts}

    async def profiles(self, files: Sequence[Path]) -> Mapping[Path, Profile]:
        """What these files say about themselves, as far as it is known or can be read in a moment.

        If this is cancelled, a thread may read on for that moment.
        """
        try:
            return await self._listing.run(
                self._profiles_within, files, READING, patience=LISTING_PATIENCE
            )
        except OSError:
            return {file: self._profiles[file][1] for file in files if file in self._profiles}

    def _profiles_within(self, files: Sequence[Path], seconds: float) -> dict[Path, Profile]:
        deadline = time.monotonic() + seconds
        found = {file: self._profile(file, time.monotonic() < deadline) for file in files}
        return {file: profile for file, profile in found.items() if profile is not None}

    def _profile(self, file: Path, may_read: bool) -> Profile | None:
        now = stamp(parts_of(file))
        then, profile = self._profiles.get(file, (None, None))
        if then == now:
            return profile
        stamped, reading = self._known.get(file, (None, None))
        if stamped != now or reading is None:
            if not may_read:
                return profile
            try:
                reading = _read(file)
            except FileNotFoundError as error:
                reading = Reading(defect=error.strerror or "")
            except OSError:
                return profile  # not remembered: the reason may be the disk, or a shortage
        defect = reading.defect.removeprefix(f"{file}: ")
        profile = profile_of(reading.header, reading.size, defect, _modified(file))
        self._profiles[file] = now, profile
        return profile

    async def chat_template(self, file: Path) -> str:
        """The model's chat template; "" if it has none, or cannot be read."""
        try:
            return await self._lane.run(
                text_of, file, _CHAT_TEMPLATE, patience=PATIENCE, place=file.parent
            )
        except (BadModelFile, OSError):
            return ""


_CHAT_TEMPLATE: Final = "tokenizer.chat_template"


def defect_of(path: Path) -> str:
    """Why no engine can load this model; "" if one may be able to. It may wait for the disk, so it
    is called in a thread, or by a command."""
    try:
        if path.exists() and not path.is_file():
            return os.strerror(errno.EISDIR) if path.is_dir() else "it is no regular file"
        return _read(path).defect.removeprefix(f"{path}: ")
    except OSError as error:
        return error.strerror or str(error)


def stamp(files: Iterable[str | Path]) -> object:
    """A value that changes when one of these files changes, comes or goes."""
    return tuple(map(_identity, files))


def _identity(file: str | Path) -> object:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> Reading:
    parts = parts_of(path)
    try:
        size = sum(part.stat().st_size for part in parts)
        return Reading(joined([header_of(part) for part in parts]), size)
    except BrokenModelFile as error:
        return Reading(defect=f"{path}: {error}")
    except BadModelFile:
        return Reading(size=size)


def _modified(file: Path) -> float:
    """When the file was changed, in seconds since 1970; 0 if there is none."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0

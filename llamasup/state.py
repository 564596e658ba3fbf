"""What survives llamasup itself: the rungs that held, and what models took on them.

One JSON file, written whole: to a new file, flushed to the disk, put in place of the old one. A
file that is torn, foreign or of another version is set aside, never overwritten. A disk that is
full or read-only costs the memory of this run, and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import cattrs
import trio
from attrs import asdict, field, frozen

from llamasup import threads
from llamasup.memory.ladder import Learned
from llamasup.memory.room import Amounts

log = logging.getLogger(__name__)

_VERSION = 2
_WITH_RUNGS_ALONE = 1
_MOST = 256
_MOST_FOOTPRINTS = 4 * _MOST
_DRAFT = ".part-"
_PATIENCE = 10.0


@frozen
class Footprint:
    """What a model takes on a rung, by device; seconds since the epoch; and who says so."""

    amounts: Amounts
    at: float
    source: Literal["measured", "engine"]


Entry = TypeVar("Entry", Learned, Footprint)


@frozen
class _Document:
    learned: dict[str, Learned] = field(factory=dict)
    footprints: dict[str, Footprint] = field(factory=dict)


class State:
    """Learned rungs and footprints under keys that name everything they depend on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writing = trio.Lock()
        self._at_disk = trio.CapacityLimiter(1)
        """A disk that hangs costs one thread, and nobody writes beside it."""

        self._known = _read(file)
        _clear_drafts(file)

    def learned(self, key: str) -> Learned | None:
        """The rung that held under `key`."""
        return self._known.learned.get(key)

    def footprint(self, key: str) -> Footprint | None:
        """What was taken under `key`."""
        return self._known.footprints.get(key)

    async def learn(self, key: str, learned: Learned) -> None:
        """Remember, on disk too; that it could not be written is only logged.

        Cancelled, it is remembered, and on disk either whole or as before.
        """
        _remember(self._known.learned, key, learned, _MOST)
        await self._save()

    async def note(self, key: str, footprint: Footprint) -> None:
        """Remember it as `learn` does."""
        _remember(self._known.footprints, key, footprint, _MOST_FOOTPRINTS)
        await self._save()

    async def _save(self) -> None:
        async with self._writing:
            text = json.dumps({"version": _VERSION, **asdict(self._known)}, indent=1)
            try:
                await threads.run(
                    _write, self._file, text, limiter=self._at_disk, patience=_PATIENCE
                )
            except OSError as error:
                log.warning("%s cannot be written: %s", self._file, error.strerror)


def _remember(entries: dict[str, Entry], key: str, entry: Entry, most: int) -> None:
    entries[key] = entry
    if len(entries) > most:
        del entries[min(entries, key=lambda known: entries[known].at)]


def _read(file: Path) -> _Document:
    try:
        document = json.loads(file.read_text())
        if document["version"] == _WITH_RUNGS_ALONE:
            document["footprints"] = {}
        elif document["version"] != _VERSION:
            raise ValueError(f"version {document['version']} is not {_VERSION}")
        learned = cattrs.structure(document["learned"], dict[str, Learned])
        return _Document(learned, cattrs.structure(document["footprints"], dict[str, Footprint]))
    except FileNotFoundError:
        return _Document()
    except OSError as error:
        log.warning("%s cannot be read: %s", file, error.strerror)
        return _Document()
    except Exception as error:  # whatever a torn or foreign file makes of the lines above
        _set_aside(file, error)
        return _Document()


def _clear_drafts(file: Path) -> None:
    """Remove what writers that were killed have left: nobody will finish it."""
    for draft in file.parent.glob(f"{file.stem}{_DRAFT}*"):
        writer = draft.name.rpartition("-")[2]
        # Our own pid was that of another one before: in a container it is 1 every time.
        if writer == str(os.getpid()) or (writer.isdecimal() and not _lives(int(writer))):
            with suppress(OSError):
                draft.unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _set_aside(file: Path, error: Exception) -> None:
    aside = file.with_suffix(f".set-aside-{os.getpid()}")
    log.warning("%s cannot be understood (%r) and is set aside as %s", file, error, aside.name)
    try:
        file.rename(aside)
    except OSError as failure:
        log.warning("%s cannot be renamed: %s", file, failure.strerror)


def _write(file: Path, text: str) -> None:
    draft = file.with_suffix(f"{_DRAFT}{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    _flush_folder(file.parent)


def _flush_folder(folder: Path) -> None:
    descriptor: Any = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

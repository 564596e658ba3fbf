"""What survives llamasup itself: the rungs that held.

One JSON file, written whole: to a new file, flushed to the disk, put in place of the old one. A
file that is torn, foreign or of another version is set aside, never overwritten. A disk that is
full or read-only costs the memory of this run, and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import cattrs
import trio
from attrs import asdict

from llamasup.memory.ladder import Learned

log = logging.getLogger(__name__)

_VERSION = 1
_MOST = 256


class State:
    """Learned rungs under a key that names everything they depend on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writing = trio.Lock()
        self._learned = _read(file)

    def learned(self, key: str) -> Learned | None:
        """What is known about `key`."""
        return self._learned.get(key)

    async def learn(self, key: str, learned: Learned) -> None:
        """Remember, on disk too; that it could not be written is only logged.

        Cancelled, it is remembered, and on disk either whole or as before.
        """
        self._learned[key] = learned
        newest = sorted(self._learned.items(), key=lambda item: item[1].at)[-_MOST:]
        self._learned = dict(newest)
        async with self._writing:
            document = {
                "version": _VERSION,
                "learned": {key: asdict(learned) for key, learned in self._learned.items()},
            }
            try:
                await trio.to_thread.run_sync(_write, self._file, json.dumps(document, indent=1))
            except OSError as error:
                log.warning("%s cannot be written: %s", self._file, error.strerror)


def _read(file: Path) -> dict[str, Learned]:
    try:
        document = json.loads(file.read_text())
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']} is not {_VERSION}")
        return cattrs.structure(document["learned"], dict[str, Learned])
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.warning("%s cannot be read: %s", file, error.strerror)
        return {}
    except Exception as error:  # whatever a torn or foreign file makes of the three lines above
        _set_aside(file, error)
        return {}


def _set_aside(file: Path, error: Exception) -> None:
    aside = file.with_suffix(f".set-aside-{os.getpid()}")
    log.warning("%s cannot be understood (%r) and is set aside as %s", file, error, aside.name)
    try:
        file.rename(aside)
    except OSError as failure:
        log.warning("%s cannot be renamed: %s", file, failure.strerror)


def _write(file: Path, text: str) -> None:
    part = file.with_suffix(f".part-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    _flush_folder(file.parent)


def _flush_folder(folder: Path) -> None:
    descriptor: Any = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

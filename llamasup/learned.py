"""What survives llamasup itself: the rungs that held, and how much memory models took on them.

This is one JSON file that other users cannot read. It is always written whole: to a new file,
which is flushed to the disk and replaces the old one. Several llamasups of one user share it: each
writes under a lock, and of two entries with the same key the newer one stays. Keys are digests,
because what they are made of may hold secrets.

A damaged or foreign file is set aside, never overwritten; its entries that can be understood are
kept. If the disk is full or read-only, only what this run learns is lost at its end.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

import cattrs
import trio
from attrs import asdict, field, frozen

from llamasup import threads
from llamasup.memory.ladder import Learned
from llamasup.memory.room import Amounts

log = logging.getLogger(__name__)

_VERSION = 3
_WITH_PLAIN_KEYS = (1, 2)
_MOST = 256
_MOST_FOOTPRINTS = 4 * _MOST
_MOST_BYTES = 16 << 20
_DRAFT = ".part-"
_PATIENCE = 10.0
_LOCK_PATIENCE = 5.0
_LOCK_PAUSE = 0.02
_A_DAY = 86400.0
_OURS_ALONE = 0o600

SourceName = Literal["measured", "engine"]


@frozen
class Footprint:
    """What a model takes on a rung, by device; when that was found; and which source says so."""

    amounts: Amounts
    at: float
    source: SourceName


Entry = TypeVar("Entry", Learned, Footprint)


@frozen
class _Document:
    learned: dict[str, Learned] = field(factory=dict)
    footprints: dict[str, Footprint] = field(factory=dict)

    def merge(self, other: _Document) -> None:
        """Of two entries with the same key the newer one stays; of too many, the oldest go."""
        _merge(self.learned, other.learned, _MOST)
        _merge(self.footprints, other.footprints, _MOST_FOOTPRINTS)

    def copy(self) -> _Document:
        """A copy that another thread may read while this document changes."""
        return _Document(dict(self.learned), dict(self.footprints))


class State:
    """Learned rungs and footprints under keys that name everything they depend on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writing = trio.Lock()
        self._at_disk = threads.Lane()
        """A disk that hangs costs one thread, and is waited for once. There is only one writer."""

        self._known = _begin(file)
        _clear_drafts(file)

    def learned(self, key: str) -> Learned | None:
        """The rung that held under `key`."""
        return self._known.learned.get(_digest(key))

    def footprint(self, key: str, source: SourceName) -> Footprint | None:
        """What was taken under `key`, as `source` says."""
        return self._known.footprints.get(_digest(f"{source}: {key}"))

    async def learn(self, key: str, learned: Learned) -> None:
        """Remember this, on disk too. If it cannot be written, that is only logged.

        If this is cancelled, it is remembered, and the file is either written whole or unchanged.
        """
        self._known.merge(_Document(learned={_digest(key): learned}))
        await self._save()

    async def note(self, key: str, footprint: Footprint) -> None:
        """Remember the footprint as `learn` does."""
        self._known.merge(_Document(footprints={_digest(f"{footprint.source}: {key}"): footprint}))
        await self._save()

    async def _save(self) -> None:
        async with self._writing:
            known = self._known.copy()
            try:
                of_all = await self._at_disk.run(_save, self._file, known, patience=_PATIENCE)
            except OSError as error:
                log.warning("%s cannot be written: %s", self._file, error)
            else:
                self._known.merge(of_all)


def _digest(key: str) -> str:
    return sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]


def _merge(entries: dict[str, Entry], others: Mapping[str, Entry], most: int) -> None:
    for key, other in others.items():
        own = entries.get(key)
        if own is None or other.at >= own.at:
            entries[key] = other
    if len(entries) > most:
        by_age = sorted(entries, key=lambda key: entries[key].at)
        for key in by_age[: len(entries) - most]:
            del entries[key]


# Reading


class _NoFile(Exception):
    """What lies there is not a regular file: it is neither read nor replaced."""


def _begin(file: Path) -> _Document:
    """What is known at the start. Whatever lies at the file's place, this does not wait for it."""
    try:
        text = _text(file)
    except FileNotFoundError:
        return _Document()
    except (OSError, _NoFile) as error:
        log.warning("%s cannot be read: %s", file, error)
        return _Document()
    document, complaints = _understood(text)
    if complaints:
        _set_aside(file, complaints[0])
        if document != _Document():
            with suppress(OSError):
                _save(file, document)
    return document


def _text(file: Path) -> bytes:
    """The file's content. Raises OSError; and _NoFile where reading could take for ever."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise _NoFile("it is no regular file")
        return opened.read(_MOST_BYTES)


def _understood(text: bytes) -> tuple[_Document, list[Exception]]:
    """All entries that can be understood, and the errors of the others."""
    complaints: list[Exception] = []
    try:
        document = json.loads(text)
        version = document["version"]
        if version not in (_VERSION, *_WITH_PLAIN_KEYS):
            raise ValueError(f"version {version} is not {_VERSION}")
        learned = _entries(document["learned"], Learned, complaints)
        footprints = {} if version == 1 else _entries(document["footprints"], Footprint, complaints)
    except Exception as error:  # a damaged or foreign file may raise anything above
        return _Document(), [error]
    if version in _WITH_PLAIN_KEYS:
        learned = {_digest(key): entry for key, entry in learned.items()}
        footprints = {_digest(f"{entry.source}: {key}"): entry for key, entry in footprints.items()}
    return _Document(learned, footprints), complaints


def _entries(
    document: Mapping[str, Any], kind: type[Entry], complaints: list[Exception]
) -> dict[str, Entry]:
    """The entries of one kind. Without those from the future, as nothing newer would replace
    them."""
    entries = {}
    tomorrow = time.time() + _A_DAY
    for key, plain in document.items():
        try:
            entry = cattrs.structure(plain, kind)
        except Exception as error:  # cattrs raises many kinds
            complaints.append(error)
        else:
            if entry.at <= tomorrow:
                entries[key] = entry
    return entries


def _set_aside(file: Path, error: Exception) -> None:
    aside = file.with_suffix(f".set-aside-{os.getpid()}")
    log.warning("%s cannot be understood (%r) and is set aside as %s", file, error, aside.name)
    try:
        file.rename(aside)
    except OSError as failure:
        log.warning("%s cannot be renamed: %s", file, failure.strerror)


def _clear_drafts(file: Path) -> None:
    """Remove the unfinished files of writers that were killed."""
    for draft in file.parent.glob(f"{file.stem}{_DRAFT}*"):
        writer = draft.name.rpartition("-")[2]
        # An earlier llamasup may have had our pid: in a container it is 1 every time.
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


# Writing


def _save(file: Path, known: _Document) -> _Document:
    """Write what is known and what others have written since, and return both. Raises OSError.

    It blocks, so it runs in a thread.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file):
        try:
            known.merge(_understood(_text(file))[0])
        except FileNotFoundError:
            pass
        except _NoFile as error:
            raise OSError(str(error)) from error
        _write(file, json.dumps({"version": _VERSION, **asdict(known)}, indent=1))
    return known


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the lock of the file's writers. Go on without it if another process holds it for too
    long, or if the disk has no locks."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(file.with_suffix(".lock"), flags, _OURS_ALONE)
    try:
        _until(lambda: _lock(descriptor), time.monotonic() + _LOCK_PATIENCE)
        yield
    finally:
        os.close(descriptor)  # this releases the lock, too


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _until(done: Callable[[], bool], deadline: float) -> None:
    """Try until then. It runs in a worker thread: flock(2) knows no limit of time."""
    while not done() and time.monotonic() < deadline:
        time.sleep(_LOCK_PAUSE)


def _write(file: Path, text: str) -> None:
    draft = file.with_suffix(f"{_DRAFT}{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    draft.unlink(missing_ok=True)
    try:
        with open(os.open(draft, flags, _OURS_ALONE), "w") as out:
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

"""The run folder: this process's sockets, and the mark that it leaves of each living child.

A child is marked by an empty file that is named after its pid and start time. So a mark cannot be
torn, and an innocent process that inherited the pid is never taken for the child. Each llamasup
has a folder of its own below one base, and holds a lock on it for as long as it lives: a folder
whose lock is free belongs to the dead, and its children are swept when the next one starts.
(The lock also keeps tmp cleaners away, which spare locked folders.)
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import gettempdir

import trio
from attrs import frozen

from llamasup import threads
from llamasup.errors import ModelUnavailable, OperatorError
from llamasup.ownership import why_not_private

log = logging.getLogger(__name__)

_MARK = "child-"
_LONGEST_SOCKET_PATH = 100
_GRACE = 2.0
_DEATH_PATIENCE = 5.0
_LOOK_AGAIN = 1.0


def default_base(environ: Mapping[str, str]) -> Path:
    """Where run folders go: the user's runtime folder, or a private one among temporary files.

    Raises OperatorError where somebody else has taken the latter's place.
    """
    runtime = environ.get("XDG_RUNTIME_DIR")
    # Somebody else's, as sudo may leave it behind, is no place for us.
    if runtime and os.access(runtime, os.W_OK) and os.stat(runtime).st_uid == os.geteuid():
        return Path(runtime) / "llamasup"
    return _private_base()


def _private_base() -> Path:
    base = Path(gettempdir()) / f"llamasup-{os.getuid()}"
    _claim(base)
    return base


def _claim(folder: Path) -> None:
    """Make it where everybody may make what they like; or see that it is ours alone."""
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise _unusable(folder, error.strerror) from error
    is_private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if found.st_uid != os.getuid() or not is_private:
        raise _unusable(folder, "it does not belong to this user alone")


def _unusable(base: Path, why: str | None) -> OperatorError:
    return OperatorError(
        f"{base} cannot be used for sockets ({why}); set folders.run to a folder that this user"
        " may write"
    )


@frozen
class Process:
    """A process that cannot be mistaken for another one of the same pid."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process of this pid, or None if there is none (a zombie is none)."""
        try:
            started = _start_time(pid)
        except (OSError, subprocess.SubprocessError, IndexError, ValueError):
            return None
        return cls(pid, started) if started else None

    def alive(self) -> bool:
        """Is it this very process that runs under its pid?"""
        return Process.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Signal it and its group; a process that is gone is no error."""
        if self.alive():
            for send in (os.killpg, os.kill):
                # macOS says of a zombie that it may not be signalled.
                with suppress(ProcessLookupError, PermissionError):
                    send(self.pid, number)


def _start_time(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        # The name before the last ")" may hold anything; state is field 3, start time field 22.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    listing = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return "_".join(listing.stdout.split())


class RunFolder:
    """This llamasup's own folder, private (0700). Another one if it was removed meanwhile: a system
    removes the user's runtime folder at the last logout, and llamasup may serve on."""

    def __init__(self, base: Path, left: list[Process]) -> None:
        """Below `base`; what dead llamasups `left` there is told. Raises OperatorError."""
        self._base = base
        self.path, self._own = _own_folder(base, left)
        self._sockets = 0
        self._marks: dict[int, Path] = {}

    def next_socket(self) -> Path:
        """A path for a child's socket that nobody has used."""
        self._sockets += 1
        return self.path / f"{self._sockets}.sock"

    @property
    def control_socket(self) -> Path:
        """Where control listens."""
        return self.path / "control.sock"

    def mark(self, pid: int) -> None:
        """A child lives: leave a mark for whoever comes after us. Raises ModelUnavailable."""
        try:
            if process := Process.of(pid):
                mark = self._marks[pid] = self._mark_of(process)
                mark.touch()
        except OSError as error:
            raise ModelUnavailable(f"{self.path} cannot be used: {error.strerror}") from error

    def adopt(self, process: Process) -> None:
        """Somebody else's child, which is ours to end: should we die, the next one knows of it."""
        with suppress(OSError):
            self._mark_of(process).touch()

    def unmark(self, pid: int) -> None:
        """It is gone. (To look for its mark would take a descriptor, and there may be none.)"""
        if mark := self._marks.pop(pid, None):
            with suppress(OSError):
                mark.unlink()

    async def keep(self, renewed: Callable[[], None]) -> None:
        """See to it until cancelled that there is one; whenever it is another one, say so."""
        has_failed = False
        while True:
            await trio.sleep(_LOOK_AGAIN)
            if self._is_there():
                continue
            try:
                await self._make_anew()
            except (OperatorError, OSError) as error:
                if not has_failed:
                    log.error("the run folder was removed, and cannot be made anew: %s", error)
                has_failed = True
            else:
                has_failed = False
                renewed()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(self._own))
        except OSError:
            return False

    async def _make_anew(self) -> None:
        """At its place, or where everybody may have one. Raises OperatorError and OSError."""
        removed, left = self.path, list[Process]()
        path, own = await threads.run(_own_folder_anywhere, self._base, left)
        os.close(self._own)
        self.path, self._own = path, own
        log.warning("the run folder %s was removed; it is %s now", removed, path)
        for process in left:
            self.adopt(process)
        for pid in list(self._marks):
            with suppress(ModelUnavailable):
                self.mark(pid)

    def remove(self) -> None:
        """With all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._own)

    def _mark_of(self, process: Process) -> Path:
        return self.path / f"{_MARK}{process.pid}-{process.started}"


@contextmanager
def own_run_folder(base: Path) -> Iterator[tuple[RunFolder, list[Process]]]:
    """This process's run folder, and the children that dead llamasups left alive.

    The folders of the dead are removed. Raises OperatorError where none can be made.
    """
    left: list[Process] = []
    folder = RunFolder(base, left)
    try:
        for process in left:
            folder.adopt(process)
        yield folder, left
    finally:
        folder.remove()


def _own_folder(base: Path, left: list[Process]) -> tuple[Path, int]:
    """A folder of our own below `base`, and the descriptor that holds its lock.

    What dead llamasups have `left` alive is told. Raises OperatorError.
    """
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Marks that others leave would have us end their victims, and a folder that they can swap
        # is where they hear prompts and forge answers.
        if why := why_not_private(base):
            raise _unusable(base, why)
        with _locked(base):
            left += _clear_the_dead(base)
            path = _made_anew(base)
            own = os.open(path, os.O_RDONLY)
            fcntl.flock(own, fcntl.LOCK_EX)
    except OSError as error:
        raise _unusable(base, error.strerror) from error
    if len(os.fsencode(path)) + 10 > _LONGEST_SOCKET_PATH:
        shutil.rmtree(path, ignore_errors=True)
        os.close(own)
        raise OperatorError(
            f"{path} is too long for a Unix socket; set folders.run to a shorter path"
        )
    return path, own


def _own_folder_anywhere(base: Path, left: list[Process]) -> tuple[Path, int]:
    """The same; among temporary files where there can be none below `base` any more."""
    try:
        return _own_folder(base, left)
    except OperatorError:
        return _own_folder(_private_base(), left)


def _made_anew(base: Path) -> Path:
    """A folder of a number that nobody has: in two containers that share a base, we may both have
    the same pid."""
    for number in count(os.getpid()):
        with suppress(FileExistsError):
            (base / str(number)).mkdir(mode=0o700)
            break
    return base / str(number)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear_the_dead(base: Path) -> Iterator[Process]:
    for folder in base.iterdir():
        if not folder.name.isdecimal() or folder.lstat().st_uid != os.geteuid():
            continue
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # no folder, or another user's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            yield from (child for child in _marked(folder) if child.alive())
            _remove(folder)
        finally:
            os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove what a llamasup leaves, and no more: the base may be a folder that others use."""
    for pattern in (f"{_MARK}*", "*.sock"):
        for remains in folder.glob(pattern):
            remains.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _marked(folder: Path) -> Iterator[Process]:
    for mark in folder.glob(f"{_MARK}*"):
        if mark.lstat().st_uid != os.geteuid():
            continue  # a stranger's word
        pid, _, started = mark.name.removeprefix(_MARK).partition("-")
        if pid.isdecimal():
            yield Process(int(pid), started)


async def sweep(left: list[Process], patience: float = 0.0) -> None:
    """End the children that a dead llamasup left, and wait until they are gone (bounded).

    They get so much patience to end by themselves: they may be about to finish an answer.
    """
    if left and patience:
        log.warning(
            "waiting up to %g s for %d processes of a llamasup that died", patience, len(left)
        )
        left = await _until_gone(left, patience)
    for number, grace in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _DEATH_PATIENCE)):
        for process in left:
            log.warning("ending process %d, left by a llamasup that died", process.pid)
            process.signal(number)
        left = await _until_gone(left, grace)


async def _until_gone(processes: list[Process], patience: float) -> list[Process]:
    """Wait for them, and return those that are there still."""
    with trio.move_on_after(patience):
        # They are not our children: nothing but looking tells when they are gone.
        while any(process.alive() for process in processes):  # noqa: ASYNC110
            await trio.sleep(0.02)
    return [process for process in processes if process.alive()]

"""The run folder: the sockets of this llamasup, and a mark for each child that lives.

A mark is an empty file with the child's identity as its name. So a mark is never half written, and
a process that got the pid of a dead child is never mistaken for it. Each llamasup has a folder of
its own below one base, and locks it as long as it lives. So the next llamasup can tell which
folders are left over, and can end the children that are marked there (`orphans`). Cleaners of
temporary files leave locked folders alone, too.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import gettempdir

import trio

from llamasup import threads
from llamasup.errors import ModelUnavailable, OperatorError
from llamasup.ownership import why_not_private
from llamasup.processes.identity import Identity
from llamasup.processes.orphans import clear_the_dead

log = logging.getLogger(__name__)

_LONGEST_SOCKET_PATH = 100
_LOOK_AGAIN = 1.0


def default_base(environ: Mapping[str, str]) -> Path:
    """The folder for run folders: the user's runtime folder, or a private one among temporary
    files.

    Raises OperatorError if another user has made a folder at the place of the private one.
    """
    runtime = environ.get("XDG_RUNTIME_DIR")
    # With sudo, the variable may still name the folder of another user.
    if runtime and os.access(runtime, os.W_OK) and os.stat(runtime).st_uid == os.geteuid():
        return Path(runtime) / "llamasup"
    return _private_base()


def _private_base() -> Path:
    base = Path(gettempdir()) / f"llamasup-{os.getuid()}"
    _claim(base)
    return base


def _claim(folder: Path) -> None:
    """Make the folder, or check that it is ours alone: other users may make folders there, too."""
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


class RunFolder:
    """This llamasup's own folder, private (0700).

    If it is removed, it is made anew, at the same path or another one: systems remove the user's
    runtime folder at the last logout, but llamasup may go on serving.
    """

    def __init__(self, base: Path, left: list[Identity]) -> None:
        """Make it below `base`. Children that dead llamasups left there are added to `left`.

        Raises OperatorError.
        """
        self._base = base
        self.path, self._own = _own_folder(base, left)
        self._sockets = 0
        self._marks: dict[int, Path] = {}

    def next_socket(self) -> Path:
        """A new path for a child's socket."""
        self._sockets += 1
        return self.path / f"{self._sockets}.sock"

    @property
    def control_socket(self) -> Path:
        """Where control listens."""
        return self.path / "control.sock"

    def mark(self, pid: int) -> None:
        """Mark a living child for the next llamasup. Raises ModelUnavailable."""
        try:
            if process := Identity.of(pid):
                mark = self._marks[pid] = self.path / process.mark
                mark.touch()
        except OSError as error:
            raise ModelUnavailable(f"{self.path} cannot be used: {error.strerror}") from error

    def adopt(self, process: Identity) -> None:
        """Mark the child of a dead llamasup: if we die before we have ended it, the next llamasup
        finds the mark here."""
        with suppress(OSError):
            (self.path / process.mark).touch()

    def unmark(self, pid: int) -> None:
        """Remove the mark of a child that is gone. This does not search the folder, which would
        take a descriptor, and there may be none."""
        if mark := self._marks.pop(pid, None):
            with suppress(OSError):
                mark.unlink()

    async def keep(self, renewed: Callable[[], None]) -> None:
        """Until cancelled, make the folder anew whenever it was removed, then call `renewed`."""
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
        """Make it at its old place, or among temporary files. Raises OperatorError and OSError."""
        removed, left = self.path, list[Identity]()
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
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._own)


@contextmanager
def own_run_folder(base: Path) -> Iterator[tuple[RunFolder, list[Identity]]]:
    """Our run folder, and the children that dead llamasups left alive. It is removed at the end.

    The folders of dead llamasups are removed at once. Raises OperatorError if ours cannot be made.
    """
    left: list[Identity] = []
    folder = RunFolder(base, left)
    try:
        for process in left:
            folder.adopt(process)
        yield folder, left
    finally:
        folder.remove()


def _own_folder(base: Path, left: list[Identity]) -> tuple[Path, int]:
    """A folder of our own below `base`, and the descriptor that holds its lock.

    Children that dead llamasups have left alive are added to `left`. Raises OperatorError.
    """
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another user with the right to write here could leave marks, so that we end any process;
        # or could swap the folder, to read prompts and forge answers.
        if why := why_not_private(base):
            raise _unusable(base, why)
        with _locked(base):
            left += clear_the_dead(base)
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


def _own_folder_anywhere(base: Path, left: list[Identity]) -> tuple[Path, int]:
    """The same, but among temporary files if it cannot be below `base` any more."""
    try:
        return _own_folder(base, left)
    except OperatorError:
        return _own_folder(_private_base(), left)


def _made_anew(base: Path) -> Path:
    """Make a folder named by the first free number, from our pid on: in containers that share a
    base two llamasups may have the same pid."""
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

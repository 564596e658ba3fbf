"""Looks for GGUF files in a folder, in a thread; `models.discover` makes models of them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from llamasup.models.discover import Found

_NOT_FOR_US = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP}


def scan(folder: Path) -> list[Found]:
    """Every GGUF file below `folder`; links are followed, and each folder is read once.

    What may not be read, or is gone by then, is left out, and so is what is no regular file: to
    open a FIFO may take for ever. Raises OSError if `folder` itself cannot be read, or a disk
    fails. It may hang, so it is called in a thread.
    """
    with os.scandir(folder):
        pass  # to see whether it can be read
    found: list[Found] = []
    homes: dict[str, tuple[int, int]] = {}
    seen: set[tuple[int, int]] = set()

    def is_new(path: str) -> bool:
        status = _status(path)
        if status is None or (home := (status.st_dev, status.st_ino)) in seen:
            return False
        seen.add(home)
        homes[path] = home
        return True

    if not is_new(str(folder)):
        return found
    for here, folders, files in os.walk(str(folder), onerror=_pass_over, followlinks=True):
        folders[:] = sorted(name for name in folders if is_new(os.path.join(here, name)))
        for name in sorted(files):
            if not name.lower().endswith(".gguf"):
                continue
            status = _status(os.path.join(here, name))
            if status and stat.S_ISREG(status.st_mode):
                path = PurePosixPath(Path(here, name).relative_to(folder).as_posix())
                identity = (status.st_dev, status.st_ino)
                size, modified = status.st_size, status.st_mtime
                found.append(Found(folder, path, size, modified, homes[here], identity))
    return found


def _status(path: str) -> os.stat_result | None:
    """The file's status; None for a link that leads nowhere, or in circles."""
    try:
        return os.stat(path)
    except OSError as error:
        _pass_over(error)
        return None


def _pass_over(error: OSError) -> None:
    """Ignore an error which means that a file is not there, or that we may not read it. Raise any
    other: it says nothing about the file."""
    if error.errno not in _NOT_FOR_US:
        raise error

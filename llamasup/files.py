"""Opens files without waiting, and only regular ones; and tells whether their content changed.

To open a FIFO can take for ever, and to open a device can set it to work.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path) -> BufferedReader:
    """The file, opened for reading; `/dev/null` is allowed, too, as an empty file.

    Raises OSError if it cannot be opened, or is not a regular file. Its disk may still hang.
    """
    _check(path, os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(descriptor))  # it may have been replaced since
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def digest_of(path: Path) -> bytes | None:
    """A value that changes with the file's content, but not with its times; None if it cannot be
    read. Its disk may hang."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _check(path: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev
    if not (stat.S_ISREG(found.st_mode) or is_null):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))

"""Opens files without waiting, and only regular ones.

To open a FIFO can take for ever, and to open a device can set it to work.
"""

from __future__ import annotations

import errno
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


def _check(path: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev
    if not (stat.S_ISREG(found.st_mode) or is_null):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))

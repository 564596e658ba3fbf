"""The context that each model was trained with, as the header of its file says.

A header takes tens of milliseconds, and there may be thousands. So they are read when somebody
asks, for a moment only, and remembered for as long as the file stays the same: what is not known
to the first who asks is known to a later one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from llamasup.models.gguf import BadModelFile, header_of


class TrainedContexts:
    """What was read so far."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[object, int | None]] = {}

    def known(self, files: Iterable[Path], within: float) -> Mapping[Path, int]:
        """The contexts of those that are known, or can be read in so many seconds.

        Meant for a thread. A file that says nothing, or cannot be read, is left out.
        """
        deadline = time.monotonic() + within
        known: dict[Path, int] = {}
        for file in files:
            if context := self._context(file, may_read=time.monotonic() < deadline):
                known[file] = context
        return known

    def _context(self, file: Path, may_read: bool) -> int | None:
        try:
            status = file.stat()
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            before, context = self._read.get(file, (None, None))
            if stamp != before and may_read:
                context = _trained_context(file)
                self._read[file] = stamp, context
        except OSError:
            return None
        return context


def _trained_context(file: Path) -> int | None:
    try:
        context = header_of(file).own("context_length")
    except BadModelFile:
        return None
    return context if isinstance(context, int) and context > 0 else None

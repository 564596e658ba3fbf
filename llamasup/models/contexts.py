"""The context that each model was trained with, as the header of its file says.

A header takes tens of milliseconds, and there may be thousands. So they are read when somebody
asks, for a moment only, and remembered for as long as the file stays the same: what is not known
to the first who asks is known to a later one. A disk that does not answer takes a moment, too, and
one thread for as long as it hangs: meanwhile what was known is believed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from llamasup import threads
from llamasup.models.gguf import BadModelFile, header_of
from llamasup.models.headers import stamp

READING: Final = 0.1
"""Seconds for which a listing may read the headers of models that are new."""

PATIENCE: Final = 1.0
"""Seconds after which a listing does without them."""


class TrainedContexts:
    """What was read so far."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[object, int | None]] = {}
        self._lane = threads.Lane()

    async def of(self, files: Sequence[Path]) -> Mapping[Path, int]:
        """The contexts of those that are known, or can be read in a moment."""
        try:
            return await self._lane.run(self.known, files, READING, patience=PATIENCE)
        except OSError:
            read = {file: self._read[file][1] for file in files if file in self._read}
            return {file: context for file, context in read.items() if context}

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
        now = stamp([file])
        then, context = self._read.get(file, (None, None))
        if now != then and may_read:
            context = _trained_context(file)
            self._read[file] = now, context
        return context


def _trained_context(file: Path) -> int | None:
    try:
        return header_of(file).trained_context
    except (BadModelFile, OSError):
        return None

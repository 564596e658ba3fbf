"""What a child writes to its outputs, read line by line for as long as it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llamasup import tending
from llamasup.engine.loglines import Event, LogReader


class Log:
    """Reads one output. `heed` gets the events in each piece of it, of which there may be none."""

    def __init__(self, whose: object, heed: Callable[[Sequence[Event]], None]) -> None:
        self._whose = whose
        self._heed = heed
        self._reader = LogReader()

    def feed(self, data: bytes) -> None:
        """Read the next piece. A mistake of ours loses this piece, and nothing more."""
        try:
            self._heed(self._reader.feed(data))
        except Exception as error:
            # Reading must go on: when the pipe is full, the child stands still.
            tending.tell_of_fall(f"the reader of {self._whose}'s log", error, ", and reads on")
            self._reader = LogReader()

    def end(self) -> None:
        """That was all. The last line may lack its line end."""
        self._heed(self._reader.end())

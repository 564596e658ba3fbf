"""How one model's children have fared, and so when the next one may be started.

`restarts` decides; here it is remembered, until an operator or another plan has it forgotten.
"""

from __future__ import annotations

import math
import random

import trio

from llamasup.children.restarts import (
    Record,
    after_change,
    after_death,
    after_failed_start,
    after_life,
    after_room,
    after_success,
    after_verdict,
)
from llamasup.engine.failures import Cause
from llamasup.errors import LlamasupError


class History:
    """Of one model."""

    def __init__(self) -> None:
        self.record = Record()
        self.last_failure: LlamasupError | None = None
        """Why there is no child; None if there is one, or was one that went as it should."""

        self.loads = 0
        """How many children were started."""

        self.crowded_out = False
        """The last load failed for want of memory, while other models held some."""

        self._given_up_in: object = None
        self._pause = trio.CancelScope()

    def forget(self) -> None:
        """What went wrong says nothing about what comes: the model is loaded in another way."""
        self.record = Record()
        self.last_failure = None
        self.crowded_out = False

    def wait(self) -> float:
        """Seconds until the next start; infinite if the model was given up."""
        return math.inf if self.record.given_up else self.record.wait(trio.current_time())

    async def rest(self, seconds: float) -> None:
        """Sleep for so long, or until room appears for what did not fit."""
        with trio.move_on_after(seconds) as self._pause:
            await trio.sleep_forever()

    def note_room(self) -> None:
        """Other models hold less memory: what did not fit beside them need not wait."""
        if self.crowded_out:
            self.crowded_out = False
            self.record = after_room(self.record, trio.current_time())
            self._pause.cancel()

    def note_circumstances(self, now: object) -> None:
        """The model's files and the engine are like this now; None if that is not known.

        If they have changed since the model was given up, it deserves another try.
        """
        if self.record.given_up and now not in (None, self._given_up_in):
            self.record = after_change(self.record)

    def note_ready(self) -> None:
        """A child is ready."""
        self.last_failure = None
        self.crowded_out = False
        self.record = after_success(self.record)

    def note_failed_start(self, cause: Cause, begun_in: object) -> None:
        """A child was not ready before its end. `begun_in` were the circumstances of the load."""
        now = trio.current_time()
        self.record = after_failed_start(self.record, now, cause.kind, random.random())
        if self.record.given_up:
            self._given_up_in = begun_in

    def note_life(self, ready_for: float) -> None:
        """A child that was ready for so many seconds went as it should."""
        self.record = after_life(self.record, ready_for)

    def note_death(self, now: float, ready_for: float) -> None:
        """A child died, after so many seconds in which it was ready."""
        self.record = after_death(self.record, now, ready_for, random.random())

    def note_explained(self, ready_for: float, deaths: int) -> None:
        """Another one died by a request, as did `deaths` of those that were noted here before."""
        self.record = after_verdict(after_life(self.record, ready_for), deaths)

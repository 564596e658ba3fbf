"""How one model's children have fared, and so when the next one may be started.

`restarts` decides; this file remembers, until an operator or a new plan makes it forget.
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
    """The history of one model."""

    def __init__(self) -> None:
        self.record = Record()
        self.last_failure: LlamasupError | None = None
        """Why there is no child; None if there is one, or if the last one ended as it should."""

        self.loads = 0
        """How many children were started."""

        self.crowded_out = False
        """Did the last load fail for want of memory, while other models held some?"""

        self._given_up_in: object = None
        self._pause = trio.CancelScope()

    def forget(self) -> None:
        """Forget what went wrong: the model will be loaded in another way."""
        self.record = Record()
        self.last_failure = None
        self.crowded_out = False

    def wait(self) -> float:
        """Seconds until the next start; infinite if the model was given up."""
        return math.inf if self.record.given_up else self.record.wait(trio.current_time())

    async def rest(self, seconds: float) -> None:
        """Sleep for so many seconds, or until there is room for a model that did not fit."""
        with trio.move_on_after(seconds) as self._pause:
            await trio.sleep_forever()

    def note_room(self) -> None:
        """Other models hold less memory: if this one did not fit beside them, it need not wait."""
        if self.crowded_out:
            self.crowded_out = False
            self.record = after_room(self.record, trio.current_time())
            self._pause.cancel()

    def note_circumstances(self, now: object) -> None:
        """`now` describes the model's files and the engine; None if that is not known.

        If they have changed since the model was given up, it is tried again.
        """
        if self.record.given_up and now not in (None, self._given_up_in):
            self.record = after_change(self.record)

    def note_ready(self) -> None:
        """A child is ready."""
        self.last_failure = None
        self.crowded_out = False
        self.record = after_success(self.record)

    def note_failed_start(self, cause: Cause, begun_in: object) -> None:
        """A child ended before it was ready. `begun_in` were the circumstances of the load."""
        now = trio.current_time()
        self.record = after_failed_start(self.record, now, cause.kind, random.random())
        if self.record.given_up:
            self._given_up_in = begun_in

    def note_life(self, ready_for: float) -> None:
        """A child that was ready for so many seconds ended as it should."""
        self.record = after_life(self.record, ready_for)

    def note_death(self, now: float, ready_for: float) -> None:
        """A child died after it was ready for so many seconds."""
        self.record = after_death(self.record, now, ready_for, random.random())

    def note_explained(self, ready_for: float, deaths: int) -> None:
        """A request caused the death of a child, and `deaths` of those that were noted before."""
        self.record = after_verdict(after_life(self.record, ready_for), deaths)

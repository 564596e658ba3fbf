"""How one model's children have fared, and so when the next one may be started.

`restarts` decides; this file remembers, until an operator or a new plan makes it forget.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import Final

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
from llamasup.engine.failures import Cause, Kind
from llamasup.errors import LlamasupError

_LOOK_AGAIN: Final = 1.0


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

        self._failed_in: object = None
        self._awaits_change = False
        self._pause = trio.CancelScope()

    def forget(self) -> None:
        """Forget what went wrong: the model will be loaded in another way."""
        self.record = Record()
        self.last_failure = None
        self.crowded_out = self._awaits_change = False

    def wait(self) -> float:
        """Seconds until the next start; infinite if the model was given up."""
        return math.inf if self.record.given_up else self.record.wait(trio.current_time())

    async def rest(
        self, seconds: float, circumstances: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Sleep for so many seconds, or until there is room for a model that did not fit, or until
        an RPC server answers that did not."""
        with trio.move_on_after(seconds) as self._pause:
            while circumstances is not None and self._awaits_change:
                await trio.sleep(_LOOK_AGAIN)
                self.note_circumstances(await circumstances())
                if not self.wait():
                    return
            await trio.sleep_forever()

    @property
    def awaits_change(self) -> bool:
        """Can a change of the circumstances, and nothing else, make the next try worth while?"""
        return self.record.given_up or self._awaits_change

    def note_room(self) -> None:
        """Other models hold less memory: if this one did not fit beside them, it need not wait."""
        if self.crowded_out:
            self.crowded_out = False
            self.record = after_room(self.record, trio.current_time())
            self._pause.cancel()

    def note_circumstances(self, now: object) -> None:
        """`now` describes the model's files, the engine, and which RPC servers answer; None if that
        is not known.

        If they have changed since the model was given up, it is tried again; at once if it only
        waited for an RPC server.
        """
        if not self.awaits_change or now in (None, self._failed_in):
            return
        if self._awaits_change:
            self.record = after_room(self.record, trio.current_time())
        else:
            self.record = after_change(self.record)
        self._awaits_change = False

    def note_ready(self) -> None:
        """A child is ready."""
        self.last_failure = None
        self.crowded_out = self._awaits_change = False
        self.record = after_success(self.record)

    def note_failed_start(self, cause: Cause, begun_in: object) -> None:
        """A child ended before it was ready. `begun_in` were the circumstances of the load."""
        now = trio.current_time()
        self.record = after_failed_start(self.record, now, cause.kind, random.random())
        self._awaits_change = cause.kind is Kind.REMOTE
        if self.awaits_change:
            self._failed_in = begun_in

    def note_life(self, ready_for: float) -> None:
        """A child that was ready for so many seconds ended as it should."""
        self.record = after_life(self.record, ready_for)

    def note_death(self, now: float, ready_for: float) -> None:
        """A child died after it was ready for so many seconds."""
        self.record = after_death(self.record, now, ready_for, random.random())

    def note_explained(self, ready_for: float, deaths: int) -> None:
        """A request caused the death of a child, and `deaths` of those that were noted before."""
        self.record = after_verdict(after_life(self.record, ready_for), deaths)

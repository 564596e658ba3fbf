"""How llamasup stops: it drains first, then breaks off what is left, and always ends in time."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import AsyncIterator
from typing import Final

import trio

from llamasup.config.in_effect import InEffect
from llamasup.systemd import Notifier

log = logging.getLogger(__name__)

_LAST_WORDS: Final = 1.0
"""Seconds in which all clients are told that their answers end."""

_HURRIED_CLOSE: Final = 10.0
"""Seconds that closing may take after a second signal, in addition to `engine.stop_grace`."""

_PATIENT_CLOSE: Final = 40.0
"""The same after one signal. It is longer, because a child that outlives KILL is waited for."""


class Stop:
    """The operator's wish to stop: first gently, then at once."""

    def __init__(self, in_effect: InEffect, notifier: Notifier) -> None:
        self._in_effect = in_effect
        self._notifier = notifier
        self.wished = trio.Event()
        self.last_call = trio.Event()
        """From here on, unfinished answers are broken off in a way that clients understand."""

        self.hurry = trio.CancelScope()
        """The scope of everything that ends at once when the drain is over."""

        self._patience = trio.CancelScope()

    async def heed(self, signals: AsyncIterator[int]) -> None:
        """The first signal begins the drain; a second one, or the drain's timeout, ends it.

        Clients are then told, which takes a moment; a third signal skips that. If anything hangs,
        the kernel ends this process when the time for all of this is over.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain)
            async for _ in signals:
                if self.last_call.is_set():
                    self.hurry.cancel()
                elif self.wished.is_set():
                    self._patience.cancel()
                config, is_hurry = self._in_effect.config, self.wished.is_set()
                patient = config.server.drain_timeout + _PATIENT_CLOSE
                end_within((_HURRIED_CLOSE if is_hurry else patient) + config.engine.stop_grace)
                self.begin()

    async def _drain(self) -> None:
        await self.wished.wait()
        with self._patience:
            await trio.sleep_forever()
        self.last_call.set()
        self.hurry.deadline = trio.current_time() + _LAST_WORDS

    def begin(self) -> None:
        """Begin the drain, unless it has begun."""
        if self.wished.is_set():
            return
        drain_timeout = self._in_effect.config.server.drain_timeout
        log.info("stopping: running answers may take %g s", drain_timeout)
        self._notifier.tell("STOPPING=1", "STATUS=running answers finish")
        self.wished.set()
        self._patience.deadline = trio.current_time() + drain_timeout


def end_within(seconds: float) -> None:
    """Have the kernel end this process after these seconds: that needs no thread, and no turn of
    the loop.

    The next start cleans up what is left behind; children end because their stdin does.
    """
    if math.isfinite(seconds):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)

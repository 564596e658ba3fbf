"""Follows the configuration's file while llamasup runs: loads it again when it has changed, and at
each SIGHUP."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Final

import trio

from llamasup import tending, threads
from llamasup.config.source import Source
from llamasup.errors import LlamasupError
from llamasup.events import By, ConfigurationChanged, ConfigurationRefused, Journal
from llamasup.running import Running
from llamasup.systemd import Notifier

log = logging.getLogger(__name__)

PAUSE: Final = 2.0
"""Seconds between two looks at the file. A change counts when the next look finds the same content:
an editor may write the file in two steps, or remove it for a moment."""

_PATIENCE: Final = 10.0
"""Seconds for which the file's disk is waited for."""


class Follower:
    """Puts the configuration that is written into effect."""

    def __init__(
        self, source: Source, hangups: AsyncIterator[int], notifier: Notifier, journal: Journal
    ) -> None:
        self._source = source
        self._hangups = hangups
        self._notifier = notifier
        self._journal = journal
        self._one_at_a_time = trio.Lock()

    async def follow(self, running: Running) -> None:
        """Follow until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tending.again, "the reload at a SIGHUP", self._heed, running)
            nursery.start_soon(
                tending.again, "the watch over the configuration's file", self._watch, running
            )

    async def _heed(self, running: Running) -> None:
        """Load the file again at each signal, changed or not."""
        async for _ in self._hangups:
            with self._notifier.reloading():
                async with self._one_at_a_time:
                    await self._reload(running)

    async def _watch(self, running: Running) -> None:
        """Load the file again when its content differs from what was loaded last.

        A refused configuration is not tried again until the file changes, even if the reason lies
        outside the file, such as an address in use: each try may close old listeners for a moment.
        """
        if not self._source.can_change:
            return
        before = self._source.seen
        while True:
            await trio.sleep(PAUSE)
            now = await threads.run(self._source.digest)
            if now == before != self._source.seen:
                async with self._one_at_a_time:
                    await self._reload(running)
            before = now

    async def _reload(self, running: Running) -> None:
        try:
            config = await threads.run(self._source.load, patience=_PATIENCE)
            await running.change(lambda _: config)
        except (LlamasupError, OSError) as error:
            self._journal.tell(ConfigurationRefused(str(error)))
        except Exception:
            # A mistake in llamasup is no reason to stop serving.
            log.exception("the configuration stays as it was")
        else:
            self._journal.tell(ConfigurationChanged(By.FILE))

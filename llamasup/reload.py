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
"""Seconds between two looks at the file. What it says has to stay the same from one look to the
next: an editor may write it in two steps, or have it gone for a moment."""

_PATIENCE: Final = 10.0
"""Seconds for the disk on which the file is."""


class Follower:
    """Puts into effect what is written."""

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
        """Load it again at each signal, changed or not."""
        async for _ in self._hangups:
            with self._notifier.reloading():
                async with self._one_at_a_time:
                    await self._reload(running)

    async def _watch(self, running: Running) -> None:
        """Load it again when the file says something else than when it was loaded last.

        What was refused is not tried again before the file changes, though the reason may lie
        outside of it, such as an address in use: each try may close old listeners for a moment.
        """
        if self._source.file is None:
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
            # A mistake in llamasup is no reason to end what runs.
            log.exception("the configuration stays as it was")
        else:
            self._journal.tell(ConfigurationChanged(By.FILE))

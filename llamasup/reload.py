"""Follows the configuration while llamasup runs: a hangup, a changed file, an operator's POST.

All that can fail comes first: reading and checking it, finding the engine, looking through the
folders, and at last listening on the new addresses. The rest happens at once, without a
checkpoint. So a configuration takes effect as a whole, or nothing changes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import attrs
import trio

from llamasup import tending, threads
from llamasup.children.launcher import Launcher
from llamasup.children.needs import Needs
from llamasup.children.plan import Plan
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, ModelSettings, Seconds
from llamasup.config.source import Source
from llamasup.errors import LlamasupError
from llamasup.front.server import Front
from llamasup.learned import State
from llamasup.models.library import Library, Look
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster
from llamasup.systemd import Notifier

log = logging.getLogger(__name__)

PAUSE: Final = 2.0
"""Seconds between two looks at the file. What it says has to stay the same from one look to the
next: an editor may write it in two steps, or have it gone for a moment."""

_PATIENCE: Final = 10.0
"""Seconds for the disks on which the configuration and the engine are."""


class Drain(Protocol):
    """The end of llamasup."""

    drain_timeout: Seconds
    grace: Seconds
    """Of children, after that."""


class Running:
    """The configuration in effect, and all that it reaches."""

    def __init__(
        self,
        in_effect: InEffect,
        launcher: Launcher,
        state: State,
        needs: Needs,
        pool: Pool,
        nursery: trio.Nursery,
    ) -> None:
        self._in_effect = in_effect
        self.pool = pool
        self.roster = Roster(
            Library(in_effect.config),
            self._planned,
            pool,
            in_effect,
            nursery,
        )
        self._launcher = launcher
        self._state = state
        self._needs = needs
        self._one_at_a_time = trio.Lock()

        self._front: Front
        self._drain: Drain
        self._prepare: Callable[[Config], Config]

    @property
    def config(self) -> Config:
        """The configuration in effect."""
        return self._in_effect.config

    def serve(self, front: Front, drain: Drain, prepare: Callable[[Config], Config]) -> None:
        """From now on it is served, and can change."""
        self._front = front
        self._drain = drain
        self._prepare = prepare

    async def adopt(self, made: Callable[[Config], Config]) -> None:
        """Put into effect what is `made` of the configuration that is in effect then.

        Raises OperatorError, EngineUnusable or ShuttingDown, and what `made` raises; then
        everything is as it was, and so it is when this is cancelled.
        """
        async with self._one_at_a_time:
            config = await threads.run(self._prepare, made(self.config), patience=_PATIENCE)
            library = self.roster.library.of(config)
            look = await library.look()
            self._front.adopt(config.server, config.recovery.max_replays)
            self._take_effect(config, library, look)

    def _take_effect(self, config: Config, library: Library, look: Look) -> None:
        before = self.config
        if config.folders != before.folders:
            log.warning("[folders] has changed, which takes effect when llamasup is restarted")
        config = attrs.evolve(config, folders=before.folders)
        self._in_effect.replace(config)
        self._drain.drain_timeout = config.server.drain_timeout
        self._drain.grace = config.engine.stop_grace
        if config.log != before.log:
            logging.getLogger().setLevel(config.log.level.upper())
        there = self.pool.keepers.keys()
        self.pool.residency.wake()
        self.roster.replace(library, look)
        self.pool.preload(
            model
            for model in config.pool.preload
            if model not in before.pool.preload or model not in there
        )

    def _planned(self, model: str, settings: ModelSettings) -> Plan:
        return Plan(model, settings, self.config, self._launcher, self._state, self._needs)


class Follower:
    """Sees to it that what is written is what runs."""

    def __init__(self, source: Source, hangups: AsyncIterator[int], notifier: Notifier) -> None:
        self._source = source
        self._hangups = hangups
        self._notifier = notifier
        self._one_at_a_time = trio.Lock()

    async def follow(self, running: Running) -> None:
        """Follow until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tending.again, "who heeds hangups", self._heed, running)
            nursery.start_soon(tending.again, "who watches the file", self._watch, running)

    async def _heed(self, running: Running) -> None:
        """Load it again at each signal, changed or not."""
        async for _ in self._hangups:
            with self._notifier.reloading():
                async with self._one_at_a_time:
                    await self._reload(running)

    async def _watch(self, running: Running) -> None:
        """Load it again when the file says something else than when it was loaded last.

        What was refused then is not tried again, though the reason may be outside of the file,
        such as an address in use: to try that, old listeners may have to be closed for a moment.
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
            await running.adopt(lambda _: config)
        except (LlamasupError, OSError) as error:
            log.error("the configuration stays as it was:")
            for line in str(error).splitlines():
                log.error("  %s", line)
        except Exception:
            # A mistake of ours is no reason to end what runs.
            log.exception("the configuration stays as it was")
        else:
            log.info("the configuration was loaded again and is in effect")

"""How a new configuration takes effect: as a whole, or not at all.

All that can fail comes first: finding the engine, looking through the folders, reading the
certificate, and then listening on the new addresses. The rest happens at once, without a
checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import attrs
import trio

from llamasup import logs, threads
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config
from llamasup.front.server import Front
from llamasup.http.certificate import Certificate, shown_by
from llamasup.models.library import Library, Look
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster

log = logging.getLogger(__name__)

_PATIENCE: Final = 10.0
"""Seconds for which the engine's disk is waited for."""

Prepare = Callable[[Config], Config]
"""Completes a configuration. Raises OperatorError or EngineUnusable if it cannot be served."""


class Running:
    """Replaces the configuration in effect, and tells all parts that have to act on the change."""

    def __init__(
        self,
        in_effect: InEffect,
        prepare: Prepare,
        pool: Pool,
        roster: Roster,
        front: Front,
        certificate: Certificate,
    ) -> None:
        self._in_effect = in_effect
        self._prepare = prepare
        self._pool = pool
        self._roster = roster
        self._front = front
        self._certificate = certificate
        self._one_at_a_time = trio.Lock()

    @property
    def config(self) -> Config:
        """The configuration in effect."""
        return self._in_effect.config

    async def change(self, made: Callable[[Config], Config]) -> None:
        """Call `made` with the configuration in effect, and put what it returns into effect.

        Raises OperatorError, EngineUnusable or ShuttingDown, and what `made` raises. Then, and when
        this is cancelled, everything stays as it was.
        """
        async with self._one_at_a_time:
            config = await threads.run(self._prepare, made(self.config), patience=_PATIENCE)
            library = self._roster.library.of(config)
            look = await library.look()
            shown = await shown_by(config.server)
            self._front.listen(config.server.listen)
            self._certificate.show(shown)
            self._take_effect(config, library, look)

    def _take_effect(self, config: Config, library: Library, look: Look) -> None:
        """Replace the configuration in its holder, then tell those that have to act on the change.

        All others read it from the holder when they need it.
        """
        before, were_there = self.config, self._pool.keepers.keys()
        if config.folders != before.folders:
            log.warning("[folders] has changed, which takes effect when llamasup is restarted")
        self._in_effect.replace(attrs.evolve(config, folders=before.folders))
        if config.log != before.log:
            logs.change(config.log.level, config.log.format)
        self._front.renew()
        self._pool.residency.wake()
        self._pool.outside.fleet.follow(config.endpoints)
        self._roster.replace(library, look)  # retires the children that are out of date
        self._pool.preload(
            model
            for model in config.pool.preload
            if model not in before.pool.preload or model not in were_there
        )

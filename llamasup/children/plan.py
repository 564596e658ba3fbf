"""What a keeper must know of its model, and the memory of which rung held."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from llamasup.children.child import Child
from llamasup.children.launcher import Launcher
from llamasup.children.needs import Needed
from llamasup.config.schema import Config, ModelSettings
from llamasup.errors import EngineUnusable
from llamasup.memory.ladder import Learned, Rung, ladder
from llamasup.state import State


class Plan:
    """One model's rungs, and how to launch it on one of them."""

    def __init__(
        self,
        model: str,
        settings: ModelSettings,
        config: Config,
        launcher: Launcher,
        state: State,
    ) -> None:
        self.model = model
        self.settings = settings
        self.rungs: Sequence[Rung] = ladder(settings, config.ladder.contexts)
        self.preloaded = model in config.pool.preload
        """It comes back by itself when it died."""

        own = settings.idle_unload
        self.idle_unload = config.pool.idle_unload if own == "auto" else own

        self.patience = config.recovery.patience
        self.climb_interval = config.ladder.climb_interval
        self._engine_args = config.engine.args
        self._launcher = launcher
        self._state = state

    async def child(self, rung: Rung) -> Child:
        """The next incarnation, not started. Raises ModelUnavailable."""
        return await self._launcher.child(self.model, self.settings, rung)

    async def needed(self, rung: Rung) -> Needed:
        """What a child on this rung takes of the memory."""
        return Needed()

    def circumstances(self) -> object:
        """Changes when a model that was given up deserves another try."""
        try:
            return self._launcher.circumstances(self.settings)
        except EngineUnusable:
            return None

    async def learned(self) -> Learned | None:
        """The rung that held last time. Raises EngineUnusable."""
        return self._state.learned(await self._key())

    async def learn(self, learned: Learned) -> None:
        """Remember it, unless the engine was replaced meanwhile by one that is unusable."""
        with suppress(EngineUnusable):
            await self._state.learn(await self._key(), learned)

    async def _key(self) -> str:
        """Everything that what is learned depends on."""
        engine = await self._launcher.engine()
        try:
            size = self.settings.path.stat().st_size
        except OSError:
            size = 0
        depends_on = [
            str(self.settings.path),
            size,
            str(self.settings.mmproj),
            str(engine.program),
            engine.version,
            self.settings.parallel,
            *self._engine_args,
            *self.settings.extra_args,
        ]
        return json.dumps(depends_on)

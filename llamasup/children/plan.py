"""What a keeper must know of its model, and the memory of which rung held."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import attrs

from llamasup.children.child import Child
from llamasup.children.launcher import Launcher
from llamasup.children.needs import Needed, Needs
from llamasup.config.schema import Config, ModelSettings
from llamasup.errors import ModelUnavailable
from llamasup.learned import State
from llamasup.memory.ladder import Learned, Rung, is_open, ladder
from llamasup.memory.room import Amounts


class Plan:
    """One model's rungs, and how to launch it on one of them."""

    def __init__(
        self,
        model: str,
        settings: ModelSettings,
        config: Config,
        launcher: Launcher,
        state: State,
        needs: Needs,
    ) -> None:
        self.model = model
        self.settings = settings
        self.known_rungs: Sequence[Rung] = ladder(settings, config.ladder.contexts, None)
        """As `rungs` told last; before that, as if every context were good for the model."""

        self.is_open = is_open(settings)
        """Is it left to us with how much context it begins?"""

        self.preloaded = model in config.pool.preload
        """It comes back by itself when it died."""

        own = settings.idle_unload
        self.idle_unload = config.pool.idle_unload if own == "auto" else own

        self.patience = config.recovery.patience
        self.climb_interval = config.ladder.climb_interval
        self._contexts = config.ladder.contexts
        self._launch = _launch(settings, config), self.known_rungs
        self._launcher = launcher
        self._state = state
        self._needs = needs

    def launches_like(self, other: Plan) -> bool:
        """Would its children be the same? If not, one of the other plan is out of date."""
        return self._launch == other._launch

    async def rungs(self) -> Sequence[Rung]:
        """The rungs, best first. For some it takes a look into the model's file."""
        if self.is_open:
            trained = await self.trained_context()
            self.known_rungs = ladder(self.settings, self._contexts, trained)
        return self.known_rungs

    async def trained_context(self) -> int | None:
        """How much context the model was trained on; None if its file does not say."""
        return await self._needs.trained_context(self.settings)

    async def file_size(self) -> int:
        """Bytes of the model's file, all parts together; 0 if it cannot be read."""
        return await self._needs.file_size(self.settings)

    async def look_at_devices(self) -> None:
        """So that the gauge knows those that the engine would use for it. What is wrong with the
        engine, who asks for more will hear."""
        with suppress(ModelUnavailable):
            await self._needs.devices(self.settings)

    async def need(self, rung: Rung, free: Amounts | None = None) -> Needed:
        """What a child on `rung` takes; the engine is asked only if so much is `free`, and that
        makes it worth while. Raises EngineUnusable."""
        return await self._needs.of(self.settings, rung, free)

    async def measured(self, rung: Rung, resident: int) -> None:
        """Remember what a child on `rung` took of the host's memory."""
        with suppress(ModelUnavailable):
            await self._needs.measured(self.settings, rung, resident)

    async def child(self, rung: Rung) -> Child:
        """The next incarnation, not started. Raises ModelUnavailable."""
        purpose = await self._needs.purpose(self.settings)
        return await self._launcher.child(self.model, self.settings, rung, purpose)

    async def circumstances(self) -> object:
        """Changes when a model that was given up deserves another try; None if not known."""
        return await self._launcher.circumstances(self.settings)

    async def learned(self) -> Learned | None:
        """The rung that held last time. Raises EngineUnusable."""
        return self._state.learned(await self._launcher.key(self.settings))

    async def learn(self, learned: Learned) -> None:
        """Remember it, unless the engine was replaced meanwhile by one that gives no answer."""
        with suppress(ModelUnavailable):
            await self._state.learn(await self._launcher.key(self.settings), learned)


def _launch(settings: ModelSettings, config: Config) -> object:
    """All that a child is, besides its rung: equal only if nothing of its start has changed."""
    own = attrs.evolve(
        settings, aliases=(), unloadable=True, idle_unload="auto", ladder=(), overcommit=False
    )
    engine = config.engine
    return own, engine.command, engine.args, dict(engine.env), engine.cache_ram

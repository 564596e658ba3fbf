"""What a keeper must know of its model, and the memory of which rung held."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs

from llamasup.children.child import Child
from llamasup.children.launcher import Launcher
from llamasup.children.needs import Needed, Needs
from llamasup.config.schema import Config, ModelSettings
from llamasup.errors import ModelUnavailable
from llamasup.learned import State
from llamasup.memory.ladder import Learned, Rung, is_open, ladder
from llamasup.memory.room import Amounts
from llamasup.models.purpose import Purpose


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
        """What `rungs` returned last; before that, with all contexts, as if the model had no
        limit."""

        self.is_open = is_open(settings)
        """May llamasup choose how much context the model begins with?"""

        self.preloaded = model in config.pool.preload
        """Is it loaded without a request, and again after it died?"""

        own = settings.idle_unload
        self.idle_unload = config.pool.idle_unload if own == "auto" else own

        self.patience = config.recovery.patience
        self.climb_interval = config.ladder.climb_interval
        self._contexts = config.ladder.contexts
        self._launch = _launch(settings, config), self.known_rungs
        self._launcher = launcher
        self._state = state
        self._needs = needs
        self._purpose: tuple[Purpose | None] | None = None

    def launches_like(self, other: Plan) -> bool:
        """Do both plans launch the same children? If not, a child of the other plan is out of
        date."""
        return self._launch == other._launch

    async def rungs(self) -> Sequence[Rung]:
        """The rungs, best first. To know some of them, the model's file has to be read."""
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
        """Let the gauge learn which devices the engine would use for the model. An unusable engine
        is no error here: later questions report it."""
        with suppress(ModelUnavailable):
            await self._needs.devices(self.settings)

    async def need(self, rung: Rung, free: Amounts | None = None) -> Needed:
        """What a child on `rung` takes. The engine is asked only if `free` is given, and its answer
        can matter when this much is free. Raises EngineUnusable."""
        return await self._needs.of(self.settings, rung, free)

    async def measured(self, rung: Rung, resident: int) -> None:
        """Remember what a child on `rung` took of the host's memory."""
        with suppress(ModelUnavailable):
            await self._needs.measured(self.settings, rung, resident)

    async def purpose(self) -> Purpose | None:
        """What the model is for; None if only the engine can tell. Its file is read once for each
        child."""
        if self._purpose is None:
            self._purpose = (await self._needs.sure_purpose(self.settings),)
        return self._purpose[0]

    async def child(self, rung: Rung) -> Child:
        """The next child, not yet started. Raises ModelUnavailable."""
        purpose = await self._needs.purpose(self.settings)
        self._purpose = None  # the file may be another one by now
        return await self._launcher.child(self.model, self.settings, rung, purpose)

    async def circumstances(self) -> object:
        """A value that changes when it makes sense to try a given-up model again; None if not
        known."""
        return await self._launcher.circumstances(self.settings)

    async def learned(self) -> Learned | None:
        """The rung that held last time. Raises EngineUnusable."""
        return self._state.learned(await self._launcher.key(self.settings))

    async def learn(self, learned: Learned) -> None:
        """Remember the rung that held, unless the engine is unusable by now."""
        with suppress(ModelUnavailable):
            await self._state.learn(await self._launcher.key(self.settings), learned)


_NOT_OF_CHILDREN: Final = {
    *("aliases", "name", "description", "owner", "metadata", "unlisted"),
    *("set_params", "default_params", "strip_params", "variants"),
    *("unloadable", "idle_unload", "ladder", "overcommit"),
}
"""The settings of a model that its child does not know: what listings show, what becomes of
requests, and how long it stays."""


def _launch(settings: ModelSettings, config: Config) -> object:
    """All that decides how a child starts, besides its rung. Equal if nothing of that has
    changed."""
    own = attrs.asdict(
        settings, recurse=False, filter=lambda key, _: key.name not in _NOT_OF_CHILDREN
    )
    engine = config.engine
    return own, engine.command, engine.args, dict(engine.env), engine.cache_ram

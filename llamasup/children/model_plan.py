"""The plan of a model that has a file: its rungs, its need, and the memory of which rung held."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs

from llamasup.children.child import Child
from llamasup.children.launcher import Launcher
from llamasup.children.needs import Needed, Needs
from llamasup.children.plan import OF_THE_OFFER, Plan
from llamasup.config.schema import Config, ModelSettings
from llamasup.errors import ModelUnavailable
from llamasup.learned import State
from llamasup.memory.ladder import Learned, Rung, is_open, ladder
from llamasup.memory.room import Amounts
from llamasup.models.purpose import Purpose

_NOT_OF_CHILDREN: Final = OF_THE_OFFER | {"ladder", "overcommit"}


class ModelPlan(Plan):
    """The plan of a model for llama-servers."""

    settings: ModelSettings

    def __init__(
        self,
        model: str,
        settings: ModelSettings,
        config: Config,
        launcher: Launcher,
        state: State,
        needs: Needs,
    ) -> None:
        rungs = ladder(settings, config.ladder.contexts, None)
        super().__init__(model, settings, config, rungs, settings.parallel)
        self.path = settings.path
        self.is_open = is_open(settings)
        self._contexts = config.ladder.contexts
        self._launcher = launcher
        self._state = state
        self._needs = needs
        self._purpose: tuple[Purpose | None] | None = None

    def _launched_by(self, config: Config) -> object:
        own = attrs.asdict(
            self.settings, recurse=False, filter=lambda key, _: key.name not in _NOT_OF_CHILDREN
        )
        engine = config.engine
        return own, engine.command, engine.args, dict(engine.env), engine.cache_ram

    async def rungs(self) -> Sequence[Rung]:
        """See Plan."""
        if self.is_open:
            trained = await self.trained_context()
            self.known_rungs = ladder(self.settings, self._contexts, trained)
        return self.known_rungs

    async def trained_context(self) -> int | None:
        """See Plan."""
        return await self._needs.trained_context(self.settings)

    async def file_size(self) -> int:
        """See Plan."""
        return await self._needs.file_size(self.settings)

    async def look_at_devices(self) -> None:
        """See Plan."""
        with suppress(ModelUnavailable):
            await self._needs.devices(self.settings)

    async def need(self, rung: Rung, free: Amounts | None = None) -> Needed:
        """See Plan."""
        return await self._needs.of(self.settings, rung, free)

    async def measured(self, rung: Rung, resident: int) -> None:
        """See Plan."""
        with suppress(ModelUnavailable):
            await self._needs.measured(self.settings, rung, resident)

    async def purpose(self) -> Purpose | None:
        """See Plan. Its file is read once for each child."""
        if self._purpose is None:
            self._purpose = (await self._needs.sure_purpose(self.settings),)
        return self._purpose[0]

    async def child(self, rung: Rung) -> Child:
        """See Plan."""
        if defect := await self._needs.defect_of_its_own(self.settings):
            raise ModelUnavailable(defect)  # a device may come back
        purpose = await self._needs.purpose(self.settings)
        self._purpose = None  # the file may be another one by now
        return await self._launcher.child(self.model, self.settings, rung, purpose)

    async def circumstances(self) -> object:
        """See Plan."""
        return await self._launcher.circumstances(self.settings)

    async def learned(self) -> Learned | None:
        """See Plan."""
        return self._state.learned(await self._launcher.key(self.settings))

    async def learn(self, learned: Learned) -> None:
        """See Plan."""
        with suppress(ModelUnavailable):
            await self._state.learn(await self._launcher.key(self.settings), learned)

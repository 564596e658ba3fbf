"""The plan of a model that has a file: its rungs, its need, and the memory of which rung held."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import attrs

from llamasup.children.child import Child
from llamasup.children.launcher import Launcher
from llamasup.children.needs import Needed, Needs
from llamasup.children.plan import Plan
from llamasup.config.schema import Config, ModelSettings
from llamasup.engine.cores import sharing
from llamasup.engine.failures import Cause, Kind
from llamasup.errors import ModelUnavailable, RemoteUnavailable
from llamasup.learned import State
from llamasup.memory.ladder import Learned, Rung, is_open, ladder
from llamasup.memory.room import Amounts
from llamasup.models.purpose import Purpose


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
        self.projector = None if settings.mmproj == "none" else settings.mmproj
        self.is_open = is_open(settings)
        self._contexts = config.ladder.contexts
        self._launcher = launcher
        self._state = state
        self._needs = needs
        self._servers = settings.rpc or config.engine.rpc
        self._reachable = attrs.evolve(settings, rpc=self._servers)
        """The settings with the RPC servers that answered when the devices were looked at."""

        self._purpose: tuple[Purpose | None] | None = None

    def _launched_by(self, config: Config) -> object:
        own = self._settings_without("ladder", "overcommit")
        engine = config.engine
        launched = engine.command, engine.args, dict(engine.env), engine.cache_ram, engine.rpc
        return own, sharing(config, self.settings), *launched

    @property
    def missing(self) -> str:
        """See Plan."""
        silent = [server for server in self._servers if server not in self._reachable.rpc]
        why = self._needs.remotes.why_silent
        told = (f"its RPC server {one} does not answer ({why(one)})" for one in silent)
        return ", ".join(told)

    async def explained(self, cause: Cause) -> Cause:
        """See Plan. An engine does not say which of its RPC servers is gone, and hangs if that has
        vanished without a word."""
        used = self._reachable.rpc
        if not used or cause.kind not in (Kind.REMOTE, Kind.HANG):
            return cause
        there = await self._needs.remotes.answering(used, anew=True)
        gone = [server for server in used if server not in there]
        if gone:
            return Cause(Kind.REMOTE, f"its RPC server {', '.join(gone)} is gone: {cause.words}")
        if cause.kind is Kind.REMOTE:
            words = f"an RPC server broke off, of {', '.join(used)}: {cause.words}"
            return Cause(Kind.REMOTE, words)
        return cause

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
            if self._servers:
                there = await self._needs.remotes.answering(self._servers)
                self._reachable = attrs.evolve(self.settings, rpc=there)
            await self._needs.devices(self._reachable)

    async def need(self, rung: Rung, free: Amounts | None = None) -> Needed:
        """See Plan."""
        return await self._needs.of(self._reachable, rung, free)

    async def measured(self, rung: Rung, resident: int) -> None:
        """See Plan."""
        with suppress(ModelUnavailable):
            await self._needs.measured(self._reachable, rung, resident)

    async def purpose(self) -> Purpose | None:
        """See Plan. Its file is read once for each child."""
        if self._purpose is None:
            self._purpose = (await self._needs.sure_purpose(self.settings),)
        return self._purpose[0]

    async def child(self, rung: Rung) -> Child:
        """See Plan."""
        if defect := await self._needs.defect_of_its_own(self._reachable):
            if self.missing:
                raise RemoteUnavailable(f"{self.missing}, and {defect}")
            raise ModelUnavailable(defect)  # a device may come back
        purpose = await self._needs.purpose(self.settings)
        self._purpose = None  # the file may be another one by now
        return await self._launcher.child(self.model, self._reachable, rung, purpose)

    async def circumstances(self) -> object:
        """See Plan."""
        known = await self._launcher.circumstances(self.settings)
        if known is None or not self._servers:
            return known
        return known, await self._needs.remotes.answering(self._servers)

    async def learned(self) -> Learned | None:
        """See Plan."""
        return self._state.learned(await self._launcher.key(self._reachable))

    async def learn(self, learned: Learned) -> None:
        """See Plan."""
        with suppress(ModelUnavailable):
            await self._state.learn(await self._launcher.key(self._reachable), learned)

"""The plan of a model with a server of its own, which is no llama-server: it has one rung only.

What it takes the operator has written; or it counts what its last child held of the host's memory,
which no tool says of a GPU's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from llamasup.children.child import Child
from llamasup.children.needs import Needed, Needs, Source
from llamasup.children.plan import Plan
from llamasup.children.server_launcher import ServerLauncher
from llamasup.config.schema import Config, ServerSettings
from llamasup.errors import ModelUnavailable
from llamasup.learned import Footprint, State
from llamasup.memory.ladder import Rung
from llamasup.memory.measured import is_fresh
from llamasup.memory.readings import HOST, Device
from llamasup.memory.room import Amounts

_AS_IS: Final = (Rung(),)


class ServerPlan(Plan):
    """The plan of a model for a server that the operator has written the command line of."""

    settings: ServerSettings

    def __init__(
        self,
        model: str,
        settings: ServerSettings,
        config: Config,
        launcher: ServerLauncher,
        state: State,
        needs: Needs,
    ) -> None:
        super().__init__(model, settings, config, _AS_IS, settings.slots)
        self.program = settings.command[0]
        self._launcher = launcher
        self._state = state
        self._needs = needs
        self._devices: Sequence[Device] | None = None

    def _launched_by(self, config: Config) -> object:
        return self._settings_without("memory")

    async def look_at_devices(self) -> None:
        """See Plan."""
        if not self._written().keys() <= {HOST}:
            with suppress(ModelUnavailable):
                self._devices = await self._needs.devices_of_all()

    async def need(self, rung: Rung, free: Amounts | None = None) -> Needed:
        """See Plan."""
        if self.settings.memory == "auto":
            return self._as_measured()
        amounts: dict[str, int] = {}
        budgets = {HOST: HOST, **{device.name: device.budget for device in self._devices or ()}}
        for name, size in self._written().items():
            if name not in budgets and self._devices is not None:
                there = " or ".join(budgets)
                defect = f"the engine lists no device {name}; write {there} in its `memory`"
                return Needed({}, Source.CONFIGURATION, defect)
            budget = budgets.get(name, name)
            amounts[budget] = amounts.get(budget, 0) + size
        return Needed(amounts, Source.CONFIGURATION)

    def _written(self) -> Mapping[str, int]:
        memory = self.settings.memory
        if memory == "auto":
            return {}
        return {HOST: memory} if isinstance(memory, int) else memory

    def _as_measured(self) -> Needed:
        known = self._state.footprint(self._key, "measured")
        if known is None or not is_fresh(known.at, time.time()):
            return Needed({}, Source.UNKNOWN)
        # It may have held more than it needs, so that does not refuse it.
        return Needed(known.amounts, Source.MEASURED, least={HOST: 0})

    async def measured(self, rung: Rung, resident: int) -> None:
        """See Plan."""
        if self.settings.memory == "auto":
            footprint = Footprint({HOST: resident}, time.time(), "measured")
            await self._state.note(self._key, footprint)

    @property
    def _key(self) -> str:
        settings = self.settings
        return json.dumps(
            ["server", settings.command, sorted(settings.env.items()), settings.slots]
        )

    async def child(self, rung: Rung) -> Child:
        """See Plan."""
        if defect := (await self.need(rung)).defect:
            raise ModelUnavailable(defect)  # a device may come back
        return self._launcher.child(self.model, self.settings)

    async def circumstances(self) -> object:
        """See Plan."""
        return await self._launcher.circumstances(self.settings)

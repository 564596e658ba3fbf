"""Puts the pool together: the models that exist now, what is known of each, and what was
learned."""

from __future__ import annotations

from pathlib import Path

import trio

from llamasup import threads
from llamasup.children.launcher import Launcher
from llamasup.children.model_plan import ModelPlan
from llamasup.children.needs import Needs
from llamasup.children.plan import Plan
from llamasup.children.server_plan import ServerPlan
from llamasup.config.folders import state_file
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import AnyModel, ModelSettings
from llamasup.errors import OperatorError
from llamasup.events import Journal
from llamasup.learned import State
from llamasup.memory.gauge import Gauge
from llamasup.models.headers import Headers
from llamasup.models.library import Library
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster

_PATIENCE = 10.0
"""Seconds for which the disk with the learned state is waited for."""


async def open_pool(
    in_effect: InEffect,
    launcher: Launcher,
    headers: Headers,
    journal: Journal,
    nursery: trio.Nursery,
) -> tuple[Pool, Roster]:
    """The pool of the models that exist now, and its roster; nothing is loaded.

    Raises OperatorError if what was learned cannot be read.
    """
    gauge = Gauge(launcher.machine)
    state = await _state(state_file(in_effect.config))
    needs = Needs(launcher, state, gauge, headers)

    def planned(model: str, settings: AnyModel) -> Plan:
        config = in_effect.config
        if isinstance(settings, ModelSettings):
            return ModelPlan(model, settings, config, launcher, state, needs)
        return ServerPlan(model, settings, config, launcher.servers, state, needs)

    pool = Pool((), in_effect, gauge, journal, nursery)
    roster = Roster(Library(in_effect.config), planned, pool, in_effect, nursery)
    await roster.refresh()
    return pool, roster


async def _state(file: Path) -> State:
    """What was learned. Raises OperatorError if its disk does not answer."""
    try:
        return await threads.run(State, file, patience=_PATIENCE)
    except OSError as error:
        raise OperatorError(
            f"{file} cannot be read: {error.strerror}; set folders.state to another folder"
        ) from error

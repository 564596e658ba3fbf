"""What fits: what every model needs, on which rung it fits, and which models would be unloaded.

Nothing is loaded or unloaded for this answer. But engines are asked what they would take, at most
once for each rung; if an answer does not come in time, the formula of `memory` counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from llamasup.children.keeper import Keeper
from llamasup.children.needs import Needed
from llamasup.children.position import beginning
from llamasup.memory.ladder import Rung
from llamasup.memory.room import Amounts, shortage
from llamasup.models.glances import one_glance
from llamasup.pool.admission import Decision, Load
from llamasup.pool.pool import Pool
from llamasup.pool.residency import Residency
from llamasup.states import KeeperState

TIME_TO_ASK: Final = 5.0
"""Seconds for the engines' answers about all models together. The next survey reuses these answers,
and has time for more."""

_UNKNOWN: Final[Amounts] = {}
"""Passed as what is free, so that the engine is asked in any case."""


@frozen
class Prospect:
    """What it would take to load a model on one rung."""

    rung: Rung
    needed: Needed
    outcome: Decision
    """What it takes to load it; Load if it is loaded on this rung already."""


@frozen
class Fit:
    """How one model fits."""

    model: str
    state: KeeperState
    path: Path | None
    program: str
    size: int
    trained_context: int | None
    begins: Prospect
    """On the rung that the model is on, or would begin with if it were loaded now."""

    best: Prospect
    """On the model's first rung."""

    largest: Rung | None
    """The first rung that fits beside the other models that are loaded."""


@frozen
class Survey:
    """All models, and what is free for them now."""

    free: Amounts
    fits: list[Fit]


async def survey(pool: Pool) -> Survey:
    """Look at every model. Raises EngineUnusable. If cancelled, no engine is left running."""
    residency = pool.residency
    until = trio.current_time() + TIME_TO_ASK
    with one_glance():
        with trio.move_on_at(until):
            for keeper in list(pool.keepers.values()):
                await keeper.plan.look_at_devices()
                await trio.lowlevel.checkpoint()
        await residency.measure()
        fits = [await _fit(keeper, residency, until) for keeper in pool.keepers.values()]
    return Survey(residency.room_beside_others("").free, fits)


async def _fit(keeper: Keeper, residency: Residency, until: float) -> Fit:
    model, plan = keeper.model, keeper.plan
    rungs = await plan.rungs()
    room = residency.room_beside_others(model)

    async def need(rung: Rung, free: Amounts = room.free) -> Needed:
        # With thousands of models, other tasks must get their turns in between.
        await trio.lowlevel.checkpoint()
        with trio.move_on_at(until):
            return await plan.need(rung, free)
        return await plan.need(rung)

    async def prospect(rung: Rung) -> Prospect:
        needed = await need(rung, _UNKNOWN)
        return Prospect(rung, needed, residency.forecast(model, needed))

    best = await prospect(rungs[0])
    if keeper.rung is not None and model in residency.places:
        begins = Prospect(keeper.rung, await need(keeper.rung, _UNKNOWN), Load())
    else:
        begins = await prospect(rungs[(await beginning(plan, rungs, room, need)).place])
    return Fit(
        model,
        keeper.state,
        plan.path,
        plan.program,
        await plan.file_size(),
        await plan.trained_context(),
        begins,
        best,
        None if best.needed.defect else await _first_that_fits(rungs, room.free, need),
    )


async def _first_that_fits(
    rungs: Sequence[Rung], free: Amounts, need: Callable[[Rung], Awaitable[Needed]]
) -> Rung | None:
    for rung in rungs:
        if not shortage((await need(rung)).amounts, free):
            return rung
    return None

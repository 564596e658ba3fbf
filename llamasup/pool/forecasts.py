"""What it would take to load each model now, forecast without asking an engine.

Needs and what other programs hold are asked every few seconds, in the background: reading files and
asking tools may take seconds, and must not hold up what is known at once, such as which models are
in memory. A forecast is made again only if that has changed, or a model came into memory or left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import trio
from attrs import frozen

from llamasup import tending
from llamasup.children.keeper import Keeper
from llamasup.children.needs import Needed
from llamasup.children.position import beginning
from llamasup.endpoints.balance import Where
from llamasup.errors import ModelUnavailable
from llamasup.models.glances import one_glance
from llamasup.pool.admission import Drain, Evict, Load, Wait
from llamasup.pool.pool import Pool
from llamasup.pool.residency import Place
from llamasup.states import KeeperState

_MEASURED_FOR: Final = 5.0
_SELDOM: Final = 10
"""What was measured counts for so many times as long as that took, with thousands of models."""

IN_MEMORY: Final = (KeeperState.READY, KeeperState.LOADING, KeeperState.WAITING)
"""Of these models there is no forecast: they are loaded, or will be."""

_MAY_LACK_A_PLACE: Final = (KeeperState.LOADING, KeeperState.WAITING)


@frozen
class Forecast:
    """What it would take to load one model."""

    where: Where
    cost: int = 0
    """How much would be unloaded for it, in bytes."""


_CANNOT: Final = Forecast(Where.CANNOT)


class Forecasts:
    """The forecasts for the models of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._needed: dict[str, Needed | None] = {}
        """None for a model that cannot be loaded now."""

        self._surveys = False
        self._surveyed = trio.Event()
        self._survey_due = -math.inf
        self._forecasts: dict[str, Forecast] = {}
        self._made_for: object = None
        """The circumstances for which they were made."""

    def of(self, model: str) -> Forecast:
        """The last forecast for this model."""
        return self._forecasts.get(model, _CANNOT)

    async def now(self, keeper: Keeper) -> Forecast:
        """The forecast for one model as things are at this moment."""
        self._survey_if_due()
        await self._surveyed.wait()
        if keeper.model not in self._needed:
            self._needed[keeper.model] = await self._need(keeper)
        if keeper.dismissed:
            return _CANNOT  # it was withdrawn meanwhile
        return self._made(keeper, bool(self._queued()))

    async def refresh(self) -> None:
        """Make the forecasts again, if they may have changed. Only the first survey of what models
        need is waited for. If this is cancelled, the last forecasts stay."""
        self._survey_if_due()
        await self._surveyed.wait()
        residency, queued = self._pool.residency, self._queued()
        places = {model: place.state for model, place in residency.places.items()}
        circumstances = places, queued, self._survey_due
        if circumstances == self._made_for:
            return
        made: dict[str, Forecast] = {}
        for keeper in list(self._pool.keepers.values()):
            if keeper.state not in IN_MEMORY:
                made[keeper.model] = self._made(keeper, bool(queued))
                await trio.lowlevel.checkpoint()
        self._forecasts, self._made_for = made, circumstances

    def _survey_if_due(self) -> None:
        unknown = self._pool.keepers.keys() - self._needed.keys()
        if not self._surveys and (unknown or trio.current_time() >= self._survey_due):
            self._surveys = True
            task = "a survey of what models need"
            self._pool.nursery.start_soon(tending.alone, task, self._survey, name=task)

    async def _survey(self) -> None:
        began = trio.current_time()
        try:
            with one_glance():
                await self._pool.residency.measure()
                keepers = list(self._pool.keepers.values())
                self._needed = {keeper.model: await self._need(keeper) for keeper in keepers}
        finally:
            now = trio.current_time()
            self._survey_due = now + max(_MEASURED_FOR, (now - began) * _SELDOM)
            self._surveys = False
            self._surveyed.set()

    def _queued(self) -> list[str]:
        """The models that will be loaded, but have no place yet."""
        return [
            keeper.model
            for keeper in self._pool.keepers.values()
            if keeper.state in _MAY_LACK_A_PLACE and keeper.model not in self._pool.residency.places
        ]

    def _made(self, keeper: Keeper, others_wait: bool) -> Forecast:
        needed, places = self._needed.get(keeper.model), self._pool.residency.places
        if needed is None or keeper.history.record.given_up:
            return _CANNOT
        match self._pool.residency.forecast(keeper.model, needed):
            case Load():
                # What is free will be another model's, which comes first.
                return Forecast(Where.EVICTS if others_wait else Where.FITS)
            case Evict(victims) | Drain(victims):
                there = [places[victim] for victim in victims if victim in places]
                return Forecast(Where.EVICTS, _held(there))
            case Wait():
                return Forecast(Where.EVICTS, _held(places.values()))
        return _CANNOT

    async def _need(self, keeper: Keeper) -> Needed | None:
        """What its next child takes; None if it cannot be loaded."""
        plan = keeper.plan
        try:
            rungs = await plan.rungs()
            room = self._pool.residency.room_beside_others(keeper.model)
            begins = await beginning(plan, rungs, room, plan.need)
            return await plan.need(rungs[begins.place])
        except ModelUnavailable:
            return None


def _held(places: Iterable[Place]) -> int:
    return sum(sum(place.holds.values()) for place in places)

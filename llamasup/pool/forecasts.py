"""What it would take to load each model now, forecast without asking an engine.

Needs and what other programs hold are remembered for some seconds. In between, a forecast is made
again only if a model came into memory, or left it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import trio
from attrs import evolve, frozen

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
        self._needed: dict[str, Needed] = {}
        self._forecasts: dict[str, Forecast] = {}
        self._made_for: object = None
        """The circumstances for which they were made."""

        self._fresh_until = -math.inf
        self._refreshing = trio.Lock()

    def of(self, model: str) -> Forecast:
        """The last forecast for this model."""
        return self._forecasts.get(model, _CANNOT)

    async def refresh(self) -> None:
        """Make the forecasts again, if they may have changed. If this is cancelled, the last ones
        stay."""
        async with self._refreshing:
            with one_glance():
                await self._refresh()

    async def _refresh(self) -> None:
        residency, now = self._pool.residency, trio.current_time()
        places = {model: place.state for model, place in residency.places.items()}
        queued = self._queued()
        circumstances = places, queued
        is_fresh = now < self._fresh_until
        if is_fresh and circumstances == self._made_for:
            return
        if not is_fresh:
            self._needed.clear()
            await residency.measure()
        made: dict[str, Forecast] = {}
        for keeper in list(self._pool.keepers.values()):
            if keeper.state not in IN_MEMORY:
                forecast = await self._made(keeper)
                if queued and forecast.where is Where.FITS:
                    # What is free will be another model's, which comes first.
                    forecast = evolve(forecast, where=Where.EVICTS)
                made[keeper.model] = forecast
                await trio.lowlevel.checkpoint()
        self._forecasts, self._made_for = made, circumstances
        if not is_fresh:
            took = trio.current_time() - now
            self._fresh_until = now + max(_MEASURED_FOR, took * _SELDOM)

    def _queued(self) -> list[str]:
        """The models that will be loaded, but have no place yet."""
        return [
            keeper.model
            for keeper in self._pool.keepers.values()
            if keeper.state in _MAY_LACK_A_PLACE and keeper.model not in self._pool.residency.places
        ]

    async def _made(self, keeper: Keeper) -> Forecast:
        model, residency = keeper.model, self._pool.residency
        if keeper.history.record.given_up:
            return _CANNOT
        try:
            if model not in self._needed:
                self._needed[model] = await self._need(keeper)
        except ModelUnavailable:
            return _CANNOT
        match residency.forecast(model, self._needed[model]):
            case Load():
                return Forecast(Where.FITS)
            case Evict(victims) | Drain(victims):
                places = (residency.places.get(victim) for victim in victims)
                return Forecast(Where.EVICTS, _held(place for place in places if place))
            case Wait():
                return Forecast(Where.EVICTS, _held(residency.places.values()))
        return _CANNOT

    async def _need(self, keeper: Keeper) -> Needed:
        """What its next child takes. Raises ModelUnavailable."""
        plan = keeper.plan
        rungs = await plan.rungs()
        room = self._pool.residency.room_beside_others(keeper.model)
        begins = await beginning(plan, rungs, room, plan.need)
        return await plan.need(rungs[begins.place])


def _held(places: Iterable[Place]) -> int:
    return sum(sum(place.holds.values()) for place in places)

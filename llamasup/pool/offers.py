"""What a llamasup in front of this one has to know: where each model is, its slots, and what it
would take to load it.

That changes with every request, so the other side keeps a question open (`since`), and the answer
comes as soon as there is another one. While such a question is open, this looks twenty times a
second, which takes 0.3 ms for forty models; nothing has to be told from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec
import trio

from llamasup.children.keeper import Keeper
from llamasup.children.needs import Needed
from llamasup.children.position import beginning
from llamasup.endpoints.answers import Offer
from llamasup.endpoints.balance import Where
from llamasup.errors import ModelMoved, ModelUnavailable
from llamasup.models.names import Choice
from llamasup.pool.admission import Drain, Evict, Load, Wait
from llamasup.pool.pool import Pool
from llamasup.states import KeeperState

_PAUSE: Final = 0.05
_MEASURED_FOR: Final = 5.0
LONGEST_WAIT: Final = 30.0

_IN_MEMORY: Final = (KeeperState.READY, KeeperState.LOADING, KeeperState.WAITING)
_WITHOUT_PLACE: Final = (KeeperState.LOADING, KeeperState.WAITING)

Document = dict[str, Any]


class Offers:
    """Makes the document. It remembers for some seconds what loading would take."""

    def __init__(self, pool: Pool, stopping: trio.Event | None = None) -> None:
        """`stopping` is set when no request is taken any more: that is told, and keeps nobody
        waiting."""
        self._pool = pool
        self._stopping = trio.Event() if stopping is None else stopping
        self._needed: dict[str, Needed] = {}
        self._forecast: dict[str, tuple[Where, int]] = {}
        self._forecast_for: object = None
        self._measured_at = -_MEASURED_FOR

    async def after(
        self, since: int | None, wait: float, choices: Callable[[], list[Choice]]
    ) -> Document:
        """The document for these names, once it is another one than `since`, or `wait` is over."""
        until = trio.current_time() + min(wait, LONGEST_WAIT)
        while True:
            document = await self._document(choices())
            is_over = trio.current_time() >= until or self._stopping.is_set()
            if is_over or document["version"] != since:
                return document
            with trio.move_on_after(_PAUSE):
                await self._stopping.wait()

    async def demand(self, model: str, expected: bytes) -> None:
        """Raise ModelMoved if the model is not where the llamasup in front believes it to be.

        It decided by what it knew, and would decide otherwise now: else a model would be loaded, or
        one unloaded for it, although another llamasup has it by now.
        """
        keeper = self._pool.keepers.get(model)
        if keeper is None or model in self._pool.outside.fleet.models:
            return
        own = self._own(keeper)
        if own.where is not Where.LOADED and expected == b"fits":
            await self._look_ahead()
            own = self._own(keeper)
        if own.where is Where.LOADED or (expected, own.where) == (b"fits", Where.FITS):
            return
        raise ModelMoved(f'"{model}" {ModelMoved.WORDS} ({expected.decode("latin-1")})')

    async def _document(self, choices: list[Choice]) -> Document:
        await self._look_ahead()
        ourselves = self._pool.outside.fleet.ourselves
        models = {choice.name: self._offer(choice.model, ourselves) for choice in choices}
        version = blake2b(msgspec.json.encode(models), digest_size=6)
        return {
            "instance": ourselves,
            "version": int.from_bytes(version.digest(), "big"),
            "models": models,
            "draining": self._stopping.is_set(),
        }

    def _offer(self, model: str, ourselves: str) -> Mapping[str, object]:
        offers = self._elsewhere(model)
        origins = {origin for offer in offers for origin in offer.origins or {ourselves}}
        if keeper := self._pool.keepers.get(model):
            offers.append(self._own(keeper))
            origins.add(ourselves)
        usable = [offer for offer in offers if offer.where is not Where.CANNOT]
        nearest = min(usable, key=lambda offer: (offer.where.value, offer.cost), default=None)
        if nearest is None:
            return {"where": "cannot", "slots": 0, "origins": sorted(origins)}
        alike = [offer for offer in usable if offer.where is nearest.where]
        return {
            "where": nearest.where.name.lower(),
            "slots": sum(offer.slots or 0 for offer in alike),
            "taken": sum(offer.taken for offer in alike),
            "cost": nearest.cost,
            "origins": sorted(origins),
        }

    def _own(self, keeper: Keeper) -> Offer:
        waiting = self._pool.waiting(keeper.model)
        if self._pool.is_held(keeper.model):
            return Offer(keeper.model, 0, waiting, Where.LOADED)  # it goes when it has answered
        if keeper.child is not None:
            slots = keeper.child.slots
            return Offer(keeper.model, slots.size, slots.taken + waiting, Where.LOADED)
        if keeper.state in _IN_MEMORY:
            return Offer(keeper.model, keeper.plan.slots, waiting, Where.LOADED)
        where, cost = self._forecast.get(keeper.model, (Where.CANNOT, 0))
        return Offer(keeper.model, keeper.plan.slots, waiting, where, cost)

    def _elsewhere(self, model: str) -> list[Offer]:
        """What instances elsewhere offer of it, as far as they can be used."""
        now = trio.current_time()
        found = []
        for instance in self._pool.outside.fleet.models.get(model, ()):
            if instance.is_usable(now):
                offer, candidate = instance.offers[model], instance.candidate(model, now)
                room = max(0, int(min(candidate.room, 1 << 20)))
                slots = room + candidate.in_flight
                found.append(
                    Offer(
                        model,
                        slots,
                        candidate.in_flight,
                        candidate.where,
                        candidate.cost,
                        offer.origins,
                    )
                )
        return found

    async def _look_ahead(self) -> None:
        """Forecast what loading each model would take, if that may have changed."""
        residency, now = self._pool.residency, trio.current_time()
        places = {model: place.state for model, place in residency.places.items()}
        queued = [
            keeper.model
            for keeper in self._pool.keepers.values()
            if keeper.state in _WITHOUT_PLACE and keeper.model not in places
        ]
        circumstances = places, queued
        is_fresh = now < self._measured_at + _MEASURED_FOR
        if is_fresh and circumstances == self._forecast_for:
            return
        if not is_fresh:
            self._measured_at = now
            self._needed.clear()
            await residency.measure()
        forecast: dict[str, tuple[Where, int]] = {}
        for keeper in list(self._pool.keepers.values()):
            if keeper.state not in _IN_MEMORY:
                where, cost = await self._outcome(keeper)
                # What is free will be another model's, which comes first.
                where = Where.EVICTS if queued and where is Where.FITS else where
                forecast[keeper.model] = where, cost
                await trio.lowlevel.checkpoint()
        self._forecast, self._forecast_for = forecast, circumstances

    async def _outcome(self, keeper: Keeper) -> tuple[Where, int]:
        model, residency = keeper.model, self._pool.residency
        if keeper.history.record.given_up:
            return Where.CANNOT, 0
        try:
            if model not in self._needed:
                self._needed[model] = await self._need(keeper)
        except ModelUnavailable:
            return Where.CANNOT, 0
        match residency.forecast(model, self._needed[model]):
            case Load():
                return Where.FITS, 0
            case Evict(victims) | Drain(victims):
                places = (residency.places.get(victim) for victim in victims)
                return Where.EVICTS, sum(sum(place.holds.values()) for place in places if place)
            case Wait():
                places_held = (sum(p.holds.values()) for p in residency.places.values())
                return Where.EVICTS, sum(places_held)
        return Where.CANNOT, 0

    async def _need(self, keeper: Keeper) -> Needed:
        """What its next child takes, without asking an engine."""
        plan = keeper.plan
        rungs = await plan.rungs()
        room = self._pool.residency.room_beside_others(keeper.model)
        begins = await beginning(plan, rungs, room, plan.need)
        return await plan.need(rungs[begins.place])

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
from llamasup.endpoints.answers import Offer
from llamasup.endpoints.balance import Where
from llamasup.errors import ModelMoved
from llamasup.models.names import Choice
from llamasup.pool.forecasts import IN_MEMORY, Forecasts
from llamasup.pool.pool import Pool

_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.2
_IDLE: Final = 9
"""The pauses take so many times as long as the work: thousands of models are looked at less often,
instead of all the time. But no pause is so long that the llamasup in front decides by old news."""

_AT_ONCE: Final = 50
"""Models; then other tasks get a turn."""

LONGEST_WAIT: Final = 30.0
_MOST_SLOTS: Final = 1 << 20

Document = dict[str, Any]


class Offers:
    """Makes the document."""

    def __init__(self, pool: Pool, stopping: trio.Event | None = None) -> None:
        """`stopping` is set when no request is taken any more: that is told, and keeps nobody
        waiting."""
        self._pool = pool
        self._stopping = trio.Event() if stopping is None else stopping
        self._forecasts = Forecasts(pool)

    async def after(
        self,
        since: int | None,
        wait: float,
        choices: Callable[[], list[Choice]],
        asker: str = "",
    ) -> Document:
        """The document for these names, once it is another one than `since`, or `wait` is over.

        `asker` names the llamasup that asks. It is not told what we have over itself: two that tell
        each other of a third one's model would believe in it for ever.
        """
        until = trio.current_time() + min(LONGEST_WAIT, wait)
        while True:
            began = trio.current_time()
            document = await self._document(choices(), asker)
            took = trio.current_time() - began
            is_over = trio.current_time() >= until or self._stopping.is_set()
            if is_over or document["version"] != since:
                return document
            with trio.move_on_after(min(max(_PAUSE, took * _IDLE), _LONGEST_PAUSE)):
                await self._stopping.wait()

    async def demand(self, model: str, expected: bytes) -> None:
        """Raise ModelMoved if the model is not where the llamasup in front believes it to be.

        It decided by what it knew, and would decide otherwise now: else a model would be loaded, or
        one unloaded for it, although another llamasup has it by now.
        """
        keeper = self._pool.keepers.get(model)
        if keeper is None or model in self._pool.outside.fleet.models:
            return
        if self._is_here(keeper):
            return
        if expected == b"fits" and (await self._forecasts.now(keeper)).where is Where.FITS:
            return
        if self._is_here(keeper):
            return  # by now
        raise ModelMoved.of(model, expected)

    async def _document(self, choices: list[Choice], asker: str) -> Document:
        await self._forecasts.refresh()
        ourselves = self._pool.outside.fleet.ourselves
        models: dict[str, Mapping[str, object]] = {}
        for first in range(0, len(choices), _AT_ONCE):
            keepers = self._pool.keepers  # which may be others after each turn of other tasks
            for choice in choices[first : first + _AT_ONCE]:
                keeper = keepers.get(choice.model)
                if offer := self._offer(choice.model, keeper, ourselves, asker):
                    models[choice.name] = offer
            await trio.lowlevel.checkpoint()
        version = blake2b(msgspec.json.encode(models), digest_size=6)
        return {
            "instance": ourselves,
            "version": int.from_bytes(version.digest(), "big"),
            "models": models,
            "draining": self._stopping.is_set(),
        }

    def _offer(
        self, model: str, keeper: Keeper | None, ourselves: str, asker: str
    ) -> Mapping[str, object]:
        """What is told of one model; nothing if it is only there over the one who asks."""
        offers = self._elsewhere(model, asker)
        origins = {origin for offer in offers for origin in offer.origins or {ourselves}}
        if keeper is not None:
            offers.append(self._own(keeper))
            origins.add(ourselves)
        if not offers:
            return {}
        over = sorted({name for offer in offers for name in offer.over})
        usable = [offer for offer in offers if offer.where is not Where.CANNOT]
        nearest = min(usable, key=lambda offer: (offer.where.value, offer.cost), default=None)
        if nearest is None:
            return {"where": "cannot", "slots": 0, "origins": sorted(origins), "over": over}
        alike = [offer for offer in usable if offer.where is nearest.where]
        return {
            "where": nearest.where.name.lower(),
            "slots": sum(offer.slots or 0 for offer in alike),
            "taken": sum(offer.taken for offer in alike),
            "cost": nearest.cost,
            "origins": sorted(origins),
            "over": over,
        }

    def _is_here(self, keeper: Keeper) -> bool:
        """Is it loaded, or loads, and is not about to go for others?"""
        is_in_memory = keeper.child is not None or keeper.state in IN_MEMORY
        return is_in_memory and not self._pool.is_held(keeper.model)

    def _own(self, keeper: Keeper) -> Offer:
        waiting = self._pool.waiting(keeper.model)
        if self._pool.is_held(keeper.model):
            return Offer(keeper.model, 0, waiting, Where.LOADED)  # it goes when it has answered
        if keeper.child is not None:
            slots = keeper.child.slots
            return Offer(keeper.model, slots.size, slots.taken + waiting, Where.LOADED)
        if keeper.state in IN_MEMORY:
            return Offer(keeper.model, keeper.plan.slots, waiting, Where.LOADS)
        forecast = self._forecasts.of(keeper.model)
        return Offer(keeper.model, keeper.plan.slots, waiting, forecast.where, forecast.cost)

    def _elsewhere(self, model: str, asker: str) -> list[Offer]:
        """What instances elsewhere offer of it, but not over the llamasup that asks."""
        now = trio.current_time()
        found = []
        for instance in self._pool.outside.fleet.models.get(model, ()):
            there, offer = instance.candidate(model, now), instance.offers[model]
            origins, over = offer.origins, offer.over | {instance.llamasup} - {""}
            if asker in over:
                continue
            where = there.where if instance.is_usable(now) else Where.CANNOT
            slots = max(0, int(min(there.room, _MOST_SLOTS))) + there.in_flight
            found.append(Offer(model, slots, there.in_flight, where, there.cost, origins, over))
        return found

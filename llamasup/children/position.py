"""Where on its ladder a model begins, where it stands, and what was tried on the way down."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Final

from attrs import frozen

from llamasup.children.needs import Needed
from llamasup.children.plan import Plan
from llamasup.errors import ModelUnavailable
from llamasup.memory.ladder import Learned, Rung, highest, is_news
from llamasup.memory.room import Amounts, Room, in_words, shortage

log = logging.getLogger(__name__)

_ALL: Final[Callable[[Needed], Amounts]] = attrgetter("amounts")
_LEAST: Final[Callable[[Needed], Amounts]] = attrgetter("least")


@frozen
class Beginning:
    """The place of the rung that a load begins with, and why each rung above was passed over."""

    place: int
    passed_over: tuple[str, ...] = ()


async def beginning(
    plan: Plan, rungs: Sequence[Rung], room: Room, need: Callable[[Rung], Awaitable[Needed]]
) -> Beginning:
    """The first rung for which there is room, but none above one that ran out of memory. Raises
    EngineUnusable.

    If no rung fits, the last one: then admission decides, or the engine fails. A context that the
    operator wrote is tried even if other models have to be unloaded for it. If llamasup may choose
    the context, it chooses one that fits into what is free, if there is such a rung.
    """
    free = sum(room.free.values())
    top = highest(rungs, await plan.learned(), time.time(), free, plan.climb_interval)
    # Measurements can be too high without a reason, so they must not rule a rung out for ever.
    limits = [(room.most, "can be had", _LEAST)]
    if plan.is_open:
        limits.insert(0, (room.free, "are free", _ALL))
    for amounts, how, part in limits:
        passed_over: tuple[str, ...] = ()
        for place, rung in enumerate(rungs[top:], top):
            takes = part(await need(rung))
            if not (device := shortage(takes, amounts)):
                return Beginning(place, passed_over)
            passed_over += (f"{rung}: needs {in_words(takes, amounts, device)} {how}",)
    return Beginning(len(rungs) - 1, passed_over[:-1])


class Position:
    """One model's place on its ladder, from one child to the next."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        """It may be replaced by another plan with the same rungs."""

        self._rungs: Sequence[Rung] = ()
        self._place: int | None = None
        self._keeps_place = False
        self._free = 0
        self._ran_out = False
        self._crowded = False
        self._suspected: dict[Rung, float] = {}
        self._tried: list[str] = []
        self.unloaded: set[str] = set()
        """The models that were unloaded for this one since it began. Each is unloaded only once, or
        this model would never step down."""

    @property
    def rung(self) -> Rung | None:
        """The rung that the model is on; None before the first load."""
        return None if self._place is None else self._rungs[self._place]

    @property
    def is_last(self) -> bool:
        """Is there no rung below?"""
        return self._place == len(self._rungs) - 1

    async def take(self, room: Room) -> Rung:
        """The rung for the next child, which may take as much as `room` says. Raises
        EngineUnusable.

        In the middle of a descent, that is the rung which was reached.
        """
        if self._place is None or not self._keeps_place:
            await self._begin(room)
        self._keeps_place = False
        self._free = sum(room.free.values())
        assert self._place is not None
        return self._rungs[self._place]

    async def _begin(self, room: Room) -> None:
        async def need(rung: Rung) -> Needed:
            return await self.plan.need(rung, room.free)

        rungs = await self.plan.rungs()
        begins = await beginning(self.plan, rungs, room, need)
        for passed_over in begins.passed_over:
            log.info("%s: %s", self.plan.model, passed_over)
        self._rungs, self._place = rungs, begins.place
        self._ran_out = False
        self._tried = list(begins.passed_over)
        self.unloaded.clear()

    def stay(self) -> None:
        """The next child takes the same rung."""
        self._keeps_place = True

    def step_down(self, words: str, *, crowded: bool = False, proven: bool = True) -> bool:
        """This rung ran out of memory, as `words` say; `crowded` if other models held some of it.

        Returns whether there is a lower rung. What is not proven is not remembered; but if the same
        rung runs out again within the climb interval, that is proof.
        """
        self._tried.append(f"{self.rung}: {words}")
        if self._place is None or self.is_last:
            return False
        self._ran_out = self._convinced(self._rungs[self._place], proven) or self._ran_out
        self._crowded = crowded
        self._place += 1
        self._keeps_place = True
        return True

    def _convinced(self, rung: Rung, proven: bool) -> bool:
        now = time.time()
        suspected_at = self._suspected.pop(rung, -math.inf)
        if proven or now - suspected_at < self.plan.climb_interval:
            return True
        self._suspected[rung] = now
        return False

    async def held(self) -> bool:
        """A child got ready on this rung: remember that, if it is news.

        Returns whether the rung is higher than the one that had held before.
        """
        rung, ran_out = self.rung, self._ran_out
        if rung is None:
            return False
        self._ran_out = False
        with suppress(ModelUnavailable):  # the engine may have become unusable
            if is_news(self._rungs, await self.plan.learned(), rung, after_an_oom=ran_out):
                crowded = ran_out and self._crowded
                await self.plan.learn(Learned(rung, time.time(), self._free, crowded))
                return not ran_out
        return False

    def story(self, last_words: str = "") -> str:
        """What was tried, rung by rung, and how each failed."""
        last = [f"{self.rung}: {last_words}"] if last_words else []
        return "; ".join([*self._tried, *last])

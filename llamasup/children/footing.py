"""Where on its ladder a model stands, and what was tried on the way down."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from llamasup.children.plan import Plan
from llamasup.memory.ladder import Learned, Rung, begin
from llamasup.memory.room import Room, in_words, shortage

log = logging.getLogger(__name__)


class Footing:
    """One model's place on its ladder, from one incarnation to the next."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        """Another one may take its place that means the same rungs."""

        self._rungs: Sequence[Rung] = ()
        self._place: int | None = None
        self._keeps_place = False
        self._free = 0
        self._tried: list[str] = []

    @property
    def rung(self) -> Rung | None:
        """The rung it is on; None before the first load."""
        return None if self._place is None else self._rungs[self._place]

    @property
    def is_last(self) -> bool:
        """Is there none below?"""
        return self._place == len(self._rungs) - 1

    async def take(self, room: Room) -> Rung:
        """The rung for the next incarnation, which may take so much. Raises EngineUnusable.

        A descent goes on where it is; any other load begins where the last one held, or else
        where there is room.
        """
        if self._place is None or not self._keeps_place:
            rungs, free = await self.plan.rungs(), sum(room.free.values())
            learned = await self.plan.learned()
            place = begin(rungs, learned, time.time(), free, self.plan.climb_interval)
            self._tried.clear()
            if place is None:
                place = await self._first_that_fits(rungs, room)
            self._rungs, self._free, self._place = rungs, free, place
        self._keeps_place = False
        return self._rungs[self._place]

    async def _first_that_fits(self, rungs: Sequence[Rung], room: Room) -> int:
        """The last rung if none fits: whoever admits it, or the engine, may see to that.

        What the operator wrote is to be tried, even if others have to go for it; what is left to
        us makes do with what is free, while that is enough for any rung.
        """
        limits = [(room.most, "can be had")]
        if self.plan.is_open:
            limits.insert(0, (room.free, "are free"))
        for amounts, how in limits:
            self._tried.clear()
            for place, rung in enumerate(rungs):
                needed = (await self.plan.need(rung, room.free)).amounts
                if not (device := shortage(needed, amounts)):
                    return place
                self._pass_over(rung, f"needs {in_words(needed, amounts, device)} {how}")
        self._tried.pop()
        return len(rungs) - 1

    def _pass_over(self, rung: Rung, why: str) -> None:
        log.info("%s: %s %s", self.plan.model, rung, why)
        self._tried.append(f"{rung}: {why}")

    def stay(self) -> None:
        """The next incarnation takes the same rung."""
        self._keeps_place = True

    def step_down(self, words: str) -> bool:
        """This rung ran out of memory, in these words. Is there a lower one to go on with?"""
        self._tried.append(f"{self.rung}: {words}")
        if self._place is None or self.is_last:
            return False
        self._place += 1
        self._keeps_place = True
        return True

    async def held(self) -> None:
        """A child got ready on this rung: remember that."""
        if self.rung is not None:
            await self.plan.learn(Learned(self.rung, time.time(), self._free))

    def story(self, last_words: str = "") -> str:
        """What was tried, rung by rung, and what each said."""
        last = [f"{self.rung}: {last_words}"] if last_words else []
        return "; ".join([*self._tried, *last])

"""Where on its ladder a model stands, and what was tried on the way down."""

from __future__ import annotations

import time

from llamasup.children.plan import Plan
from llamasup.memory.host import free_memory
from llamasup.memory.ladder import Learned, Rung, begin


class Footing:
    """One model's place on its ladder, from one incarnation to the next."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._place: int | None = None
        self._keeps_place = False
        self._tried: list[str] = []

    @property
    def rung(self) -> Rung | None:
        """The rung it is on; None before the first load."""
        return None if self._place is None else self._plan.rungs[self._place]

    @property
    def is_last(self) -> bool:
        """Is there none below?"""
        return self._place == len(self._plan.rungs) - 1

    async def take(self) -> Rung:
        """The rung for the next incarnation. Raises EngineUnusable.

        A descent goes on where it is; any other load begins where the last one held.
        """
        if self._place is None or not self._keeps_place:
            learned = await self._plan.learned()
            interval = self._plan.climb_interval
            now = time.time()
            self._place = begin(self._plan.rungs, learned, now, free_memory(), interval)
            self._tried.clear()
        self._keeps_place = False
        return self._plan.rungs[self._place]

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
            await self._plan.learn(Learned(self.rung, time.time(), free_memory()))

    def story(self, last_words: str = "") -> str:
        """What was tried, rung by rung, and what each said."""
        last = [f"{self.rung}: {last_words}"] if last_words else []
        return "; ".join([*self._tried, *last])

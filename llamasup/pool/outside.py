"""Where requests wait for instances elsewhere: a line for each model, and who goes where.

Nobody waits in an instance's own queue, which may be unfair, and would tie a request to it: a
request goes to the first instance that has room for it. While every instance of a model loads or
cannot be reached, its requests wait for the endpoint's `cold_start_timeout`.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Final

import trio

from llamasup.access.consumption import Consumption
from llamasup.config.in_effect import InEffect
from llamasup.endpoints.balance import Where, choose, is_free_elsewhere
from llamasup.endpoints.fleet import Fleet
from llamasup.endpoints.health import Condition
from llamasup.endpoints.instance import Instance
from llamasup.errors import (
    EndpointsAway,
    LlamasupError,
    ModelNotFound,
    ModelNotLoaded,
    QueueFull,
    QueueTimeout,
)
from llamasup.pool.queue import Client, Crowded, FairQueue, Ticket, full
from llamasup.pool.trail import MOST_MOVES, Trail
from llamasup.pool.work import Work

_COME_AGAIN_AFTER: Final = 5.0


class Errand:
    """One request on its way to an instance elsewhere."""

    def __init__(
        self,
        model: str,
        work: Work,
        client: Callable[[], Client],
        priority: int,
        prefix: Callable[[], bytes],
        trail: Trail,
    ) -> None:
        """`prefix` stands for the beginning of its conversation, and is called if that matters."""
        self.model = model
        self.work = work
        self.client = client
        self.priority = priority
        self.prefix = prefix
        self.trail = trail
        self.instance: Instance | None = None
        """Where it is, once it was let in."""

        self.was = Where.CANNOT
        """Where its model was there, as far as we knew when it was let in."""

        self.recall: Callable[[], bool] = lambda: False
        """Takes it back from there, to be sent elsewhere; False if that cannot be."""

        self.failure: LlamasupError | None = None
        self.answered = trio.Event()
        self.ticket: Ticket[Errand] | None = None


class Outside:
    """The lines before all instances elsewhere."""

    def __init__(self, fleet: Fleet, in_effect: InEffect) -> None:
        self.fleet = fleet
        self.consumption = Consumption()
        """What clients used lately, if `pool.fair` is "tokens". Who hears of answers adds it."""

        self._in_effect = in_effect
        self._lines: OrderedDict[str, FairQueue[Errand]] = OrderedDict()
        """Of the models that requests wait for, in the order of their turns."""

        self._early: defaultdict[str, list[Errand]] = defaultdict(list)
        """Requests that wait elsewhere for their model to be loaded, or did when they were sent."""

        self._turn = 0
        self._usable_at: dict[str, float] = {}
        """When an instance of these models was last known to take requests."""

        fleet.on_room = self.admit

    def has(self, model: str) -> bool:
        """Has an instance elsewhere this model?"""
        return model in self.fleet.models

    def waiting(self, model: str) -> int:
        """How many requests wait for it here."""
        return len(self._lines.get(model, ()))

    def try_enter(self, errand: Errand) -> bool:
        """Let the request in at once if an instance has room and nobody waits. `leave` gives the
        room back."""
        others_wait = errand.work is Work.GENERATE and errand.model in self._lines
        return not others_wait and self._let_in(errand)

    async def enter(self, errand: Errand) -> Instance:
        """Wait for an instance with room for the request; `leave` gives the room back.

        Raises QueueFull, QueueTimeout, EndpointsAway if no instance can be used for too long, and
        ModelNotFound if none has the model any more. If this is cancelled, nothing is held.
        """
        if not self.try_enter(errand):
            self._join(errand)
            try:
                await self._wait(errand)
            except BaseException:
                self._give_up(errand)
                raise
        if errand.failure:
            raise errand.failure
        assert errand.instance is not None  # there is no third way out
        return errand.instance

    def leave(self, errand: Errand) -> None:
        """The instance is done with the request, and another one may enter."""
        instance, errand.instance = errand.instance, None
        if instance is not None and errand.work is Work.GENERATE:
            self._forget(errand)
            instance.leave(errand.model)

    def _forget(self, errand: Errand) -> None:
        early = self._early.get(errand.model, [])
        if errand in early:
            early.remove(errand)
            if not early:
                del self._early[errand.model]

    def to_look_at(self, errand: Errand) -> Instance:
        """An instance for a request that only looks: it waits for none. Raises ModelNotLoaded."""
        instances = self._usable(errand.model, trio.current_time())
        if not instances:
            raise ModelNotLoaded(
                f"{self._why_away(errand.model)}; a look waits for none, so ask again"
            )
        return min(instances, key=lambda i: i.offers[errand.model].where.value)

    def others(self, errand: Errand) -> bool:
        """Is there another instance that could answer the request, and has not tried it yet?"""
        return any(
            instance is not errand.instance and instance.name not in errand.trail.tried
            for instance in self._usable(errand.model, trio.current_time())
        )

    def outlook(self, model: str) -> str:
        """What a request waits for, for its client."""
        if self._usable(model, trio.current_time()):
            return f"waiting for a slot of {model}"
        return f"waiting for {model}: {self._why_away(model)}"

    def admit(self) -> None:
        """Let in as many waiting requests as there is room for; the models take turns."""
        now = trio.current_time()
        for model in list(self._lines):
            instances = self.fleet.models.get(model)
            if instances is None:
                gone = ModelNotFound(f'no instance elsewhere has the model "{model}" any more')
                self._turn_away(model, gone)
            elif self._usable(model, now):
                self._usable_at[model] = now
        has_let_in = True
        while has_let_in:
            has_let_in = False
            for model in list(self._lines):
                if self._has_room(model):
                    self._let_next_in(model)
                    has_let_in = True
        for model in list(self._early):
            self._recall(model)

    def _recall(self, model: str) -> None:
        """Take back requests that wait for a load elsewhere, as many as find the model loaded and
        free now. If nothing else needs such a load, and it has not begun, it will not."""
        now, early = trio.current_time(), self._early[model]
        there = [i.candidate(model, now) for i in self._usable(model, now)]
        promised = 0
        for errand in list(early):
            assert errand.instance is not None  # it has not left
            if model not in errand.instance.offers:
                continue
            here = errand.instance.candidate(model, now)
            if is_free_elsewhere(here, there, promised) and errand.recall():
                promised += 1  # it leaves in a moment

    def _let_next_in(self, model: str) -> None:
        line = self._lines[model]
        by_tokens = self._in_effect.config.pool.fair == "tokens"
        errand = line.pop(self.consumption.at(trio.current_time()) if by_tokens else None)
        errand.ticket = None
        if line:
            self._lines.move_to_end(model)
        else:
            self._close(model)
        self._let_in(errand)
        errand.answered.set()

    def _has_room(self, model: str) -> bool:
        now = trio.current_time()
        there = [i.candidate(model, now) for i in self._usable(model, now)]
        return choose(there) is not None

    def _usable(self, model: str, now: float) -> list[Instance]:
        """The instances that may get requests for the model, as soon as they have room."""
        instances = self.fleet.models.get(model, ())
        return [
            i for i in instances if i.is_usable(now) and i.offers[model].where is not Where.CANNOT
        ]

    def _let_in(self, errand: Errand) -> bool:
        now = trio.current_time()
        instances = self._usable(errand.model, now)
        fresh = [i for i in instances if i.name not in errand.trail.tried]
        instance = self._chosen(fresh, errand, now) or self._chosen(instances, errand, now)
        if instance is None:
            return False
        errand.instance = instance
        if errand.work is Work.GENERATE:
            errand.was = instance.offers[errand.model].where
            if errand.was is not Where.LOADED or errand.trail.moves >= MOST_MOVES:
                self._early[errand.model].append(errand)
            instance.enter(errand.model)
        return True

    def _chosen(self, instances: list[Instance], errand: Errand, now: float) -> Instance | None:
        if errand.work is not Work.GENERATE:
            # It needs no slot: any instance will do, and one that has the model loaded is best.
            there = [i for i in instances if i.offers[errand.model].where is not Where.CANNOT]
            return min(there, key=lambda i: i.offers[errand.model].where.value, default=None)
        settings = self._in_effect.config.pool
        candidates = {i.name: (i, i.candidate(errand.model, now)) for i in instances}
        matters = settings.sticky and len(candidates) > 1
        self._turn += 1
        found = choose(
            [candidate for _, candidate in candidates.values()],
            settings.balance,
            self._turn,
            errand.prefix() if matters else b"",
        )
        return None if found is None else candidates[found.name][0]

    def _join(self, errand: Errand) -> None:
        line = self._lines.setdefault(errand.model, FairQueue(0))
        line.size = self._in_effect.config.pool.max_queue
        client = errand.client()
        errand.answered = trio.Event()  # it may have waited before, for one that was gone then
        try:
            if len(line) >= line.size:
                waiting = len(line)
                greedy = line.displace(client)
                greedy.failure = self._full(errand.model, waiting)
                greedy.ticket = None
                greedy.answered.set()
            errand.ticket = line.push(errand, client, errand.priority)
        except Crowded:
            waiting = len(line)
            if not line:
                self._close(errand.model)
            raise self._full(errand.model, waiting) from None

    def _full(self, model: str, waiting: int) -> QueueFull:
        words = f'all instances of "{model}" are busy, and {waiting} requests wait'
        return full(self._in_effect.config.pool, words)

    async def _wait(self, errand: Errand) -> None:
        """Wait until the request is let in or refused, or its patience ends."""
        came, patience = trio.current_time(), self._in_effect.config.pool.queue_timeout
        until = came + patience
        while True:
            with trio.move_on_at(min(until, self._away_until(errand.model, came))):
                await errand.answered.wait()
                return
            now = trio.current_time()
            if now >= until:
                raise QueueTimeout(
                    f'"{errand.model}" had no time for this request within {patience:g} s;'
                    " ask again when fewer do, or add instances that have the model"
                )
            if now >= self._away_until(errand.model, came):
                away = EndpointsAway(self._why_away(errand.model))
                away.retry_after = _COME_AGAIN_AFTER
                raise away

    def _away_until(self, model: str, came: float) -> float:
        """Until when a request waits at least, as an instance can be used, or may come back."""
        now, instances = trio.current_time(), self.fleet.models.get(model, ())
        if all(i.health.condition is Condition.REFUSING for i in instances):
            return came
        if self._usable(model, now):
            self._usable_at[model] = now
        patience = max(i.settings.cold_start_timeout for i in instances)
        return max(came, self._usable_at.get(model, 0.0)) + patience

    def _why_away(self, model: str) -> str:
        instances = self.fleet.models.get(model, ())
        conditions = ", ".join(
            f"{i.name} is {i.health.condition.value}{i.health.why and f' ({i.health.why})'}"
            for i in instances
        )
        return f'no instance of "{model}" can be used now: {conditions}'

    def _give_up(self, errand: Errand) -> None:
        """The request does not wait any more; it may have been let in just now."""
        if errand.instance is not None:
            self.leave(errand)
        elif errand.ticket is not None:
            line = self._lines[errand.model]
            line.remove(errand.ticket)
            errand.ticket = None
            if not line:
                self._close(errand.model)

    def _turn_away(self, model: str, error: LlamasupError) -> None:
        line = self._lines[model]
        while line:
            errand = line.pop()
            errand.ticket = None
            errand.failure = error.again()
            errand.answered.set()
        self._close(model)

    def _close(self, model: str) -> None:
        del self._lines[model]
        self._usable_at.pop(model, None)

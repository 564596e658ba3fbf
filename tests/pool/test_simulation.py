"""Admission and queue together, driven through seeded scenarios in virtual time.

`Pool` below does what the decisions say, at once and to the letter, and checks after every step
what has to be true always; a scenario ends when nothing is left to happen, and then nobody waits.
Times are quarters of a second, so that much happens at the same moment.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from itertools import count
from math import ceil

from attrs import define, field, frozen

from llamasup.pool.admission import (
    MODELS,
    Claim,
    Decision,
    Drain,
    Evict,
    Group,
    Load,
    Refuse,
    Resident,
    State,
    Wait,
    World,
    decide,
    dispensable,
    unload_times,
)
from llamasup.pool.queue import Client, Crowded, FairQueue, Ticket
from tests.harness import steps

LONGEST_LOAD, LONGEST_STOP, LONGEST_ANSWER = 8.0, 2.0, 6.0
KEYS = ("ann", "bob", "cyd")
SCENARIOS = 2000


@frozen
class Model:
    """What a model is, whether it is resident or not."""

    name: str
    need: dict[str, int]
    slots: int = 1
    load_seconds: float = 1.0
    stop_seconds: float = 0.5
    pinned: bool = False
    idle_unload: float = 0.0
    fails: float = 0.0
    """How likely a load is to fail; at 1.0 it is known beforehand."""

    least: float = 1.0
    """So much of its need it cannot do without: the rest was measured once, or is mapped."""

    hidden: int = 0
    """What it takes of each device beyond its need, which nobody knows."""


@define(eq=False)
class Request:
    """One request, and what became of it."""

    model: str
    key: str
    priority: int
    arrived: float
    lasts: float
    end: str = ""
    ended: float = 0.0
    ticket: Ticket[Request] | None = None
    may_be_overtaken: int = 0
    """By so many that came later to the same model, however urgent they say they are."""


@define(eq=False)
class Child:
    """A resident model."""

    model: Model
    state: State = State.LOADING
    ready_at: float = 0.0
    last_used: float = 0.0
    running: set[Request] = field(factory=set)
    held_since: float = 0.0


class Pool:
    """The world of a scenario: its clock, its children, its queues."""

    def __init__(
        self,
        models: list[Model],
        budgets: dict[str, int],
        *,
        max_loaded: int = 0,
        groups: tuple[Group, ...] = (),
        patience: float = 4.0,
        queue_size: int = 30,
        chance: random.Random,
    ) -> None:
        self.models = {model.name: model for model in models}
        self.budgets = budgets
        self.max_loaded = max_loaded
        self.groups = groups
        self.patience = patience
        self.chance = chance
        self.now = 0.0
        self.children: dict[str, Child] = {}
        self.claims: dict[str, Claim] = {}
        self.older_claims: dict[str, int] = {}
        """How many there were when a claim was staked."""

        self.queues = {name: FairQueue[Request](queue_size) for name in self.models}
        self.waiting: dict[str, list[Request]] = {name: [] for name in self.models}
        self.requests: list[Request] = []
        self.made_way: dict[str, set[str]] = {name: set() for name in self.models}
        """Who has gone for a load that ran out of memory, since it was first tried."""

        self.tries: Counter[str] = Counter()
        self.evictions: Counter[str] = Counter()
        self.decided = 0
        self.decision_steps: list[int] = []
        """Of every twentieth decision: to count them takes its time."""

        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._alarms: set[float] = set()

    # Time

    def at(self, time: float, event: Callable[[], None]) -> None:
        heappush(self._events, (time, next(self._order), event))

    def run(self) -> None:
        while self._events:
            self.now, _, event = heappop(self._events)
            event()
            self._settle()
        waiting = [request for request in self.requests if not request.end]
        assert waiting == [], f"{len(waiting)} requests wait for ever"

    # What happens to a request

    def request(
        self, model: str, time: float, lasts: float, key: str = "ann", prio: int = 0
    ) -> Request:
        request = Request(model, key, prio, time, lasts)
        self.requests.append(request)
        self.at(time, lambda: self._arrive(request))
        return request

    def _arrive(self, request: Request) -> None:
        queue = self.queues[request.model]
        try:
            request.ticket = queue.push(request, Client(request.key), request.priority)
        except Crowded:
            self._end(request, "queue full")
            return
        waiting = self.waiting[request.model]
        own = sum(other.key == request.key for other in waiting)
        # Of its own line's turns, and of all turns, every other one may go to urgent ones.
        request.may_be_overtaken = 2 * (own + 1) * 2 * len(KEYS)
        waiting.append(request)
        if not self._admits(request.model):
            self._stake(request.model)

    def cancel(self, request: Request) -> None:
        """Its client leaves, wherever it is."""
        if request.ticket is not None:
            self._leave(request, "cancelled")
        else:
            self._answered(request, "cancelled")

    def _start(self, child: Child) -> None:
        request = self.queues[child.model.name].pop()
        request.ticket = None
        self.waiting[request.model].remove(request)
        for other in self.waiting[request.model]:
            if other.arrived < request.arrived:
                other.may_be_overtaken -= 1
                assert other.may_be_overtaken >= 0, f"{other} is overtaken too often"
        child.running.add(request)
        self.at(self.now + request.lasts, lambda: self._answered(request, "served"))

    def _answered(self, request: Request, end: str) -> None:
        if not request.end:
            child = self.children[request.model]
            child.running.remove(request)
            child.last_used = self.now
            self._end(request, end)

    def _leave(self, request: Request, end: str) -> None:
        assert request.ticket is not None
        self.queues[request.model].remove(request.ticket)
        request.ticket = None
        self.waiting[request.model].remove(request)
        self._end(request, end)

    def _end(self, request: Request, end: str) -> None:
        request.end = end
        request.ended = self.now

    # What happens to a child

    def _load(self, model: Model) -> None:
        assert model.name not in self.children
        waited = self.now - self.claims[model.name].since
        longest = self._longest_wait(self.older_claims[model.name] + self.tries[model.name])
        assert waited <= longest, f"{model} waited {waited} for its turn"
        self._check_place(model)
        child = self.children[model.name] = Child(model)
        self.at(self.now + model.load_seconds, lambda: self._loaded(child))

    def _longest_wait(self, older: int) -> float:
        """A turn is a load that was under way, patience, and the end of answers and of victims.

        Older claims have theirs before; and so has, after an eviction, whoever evicted.
        """
        answers = len(self.models) * LONGEST_ANSWER  # in rounds, if all of them have to go
        turn = LONGEST_LOAD + self.patience + answers + LONGEST_STOP
        return (older + 2) * turn

    def _loaded(self, child: Child) -> None:
        if self._runs_out(child.model):
            del self.children[child.model.name]
            self._make_way(child.model)
            return
        self.made_way[child.model.name].clear()
        self.tries[child.model.name] = 0
        if self.chance.random() < child.model.fails:
            del self.children[child.model.name]
            self._turn_away(child.model.name, "not loaded")
        else:
            child.state = State.READY
            child.ready_at = child.last_used = self.now

    def _runs_out(self, model: Model) -> bool:
        """Is there less than what all of them take, those that are going among them?"""
        if not model.hidden:
            return False
        held = Counter(model.need)
        for child in self.children.values():
            if child.model is not model:
                held.update(child.model.need)
        return any(held[device] + model.hidden > budget for device, budget in self.budgets.items())

    def _make_way(self, model: Model) -> None:
        """As the keeper does: the idle go, each once, and it is tried again; else it has failed."""
        claim = self._claim(model, self.now)
        could = dispensable(self._world(), claim, self.now)
        way = self.made_way[model.name]
        if able := [name for name in could if name not in way]:
            way.add(able[0])
            self.tries[model.name] += 1
            self.evictions[model.name] += 1
            if (victim := self.children[able[0]]).state is not State.STOPPING:
                self._stop(victim)
            return
        idle = {name for name in could if self.children[name].state is not State.STOPPING}
        assert idle <= way, f"{model} is told that it does not fit, though {idle} idle"
        self._turn_away(model.name, "not loaded")
        way.clear()
        self.tries[model.name] = 0

    def _stop(self, child: Child) -> None:
        assert not child.model.pinned
        assert not child.running
        assert child.state in (State.READY, State.DRAINING)
        child.state = State.STOPPING
        name = child.model.name
        if self.queues[name]:
            self._stake(name)
        self.at(self.now + child.model.stop_seconds, lambda: self._gone(child))

    def _gone(self, child: Child) -> None:
        del self.children[child.model.name]

    def crash(self, name: str) -> None:
        child = self.children.get(name)
        if child is not None and child.state in (State.READY, State.DRAINING):
            for request in list(child.running):
                self._answered(request, "lost")
            del self.children[name]
            if self.queues[name]:
                self._stake(name)

    def _turn_away(self, name: str, end: str) -> None:
        for request in list(self.waiting[name]):
            self._leave(request, end)

    # What is decided

    def _settle(self) -> None:
        """Do what is decided, until there is nothing more to do at this moment."""
        for _ in range(50):
            self._admit()
            self._unload_the_idle()
            if not self._obey():
                return
            self._check()
        raise AssertionError("the decisions never come to rest")

    def _admit(self) -> None:
        for name, child in self.children.items():
            while (
                self._admits(name) and self.queues[name] and len(child.running) < child.model.slots
            ):
                self._start(child)
        self.claims = {
            name: claim
            for name, claim in self.claims.items()
            if self.queues[name] and not self._admits(name)
        }

    def _unload_the_idle(self) -> None:
        for name, time in unload_times(self._world().residents.values()).items():
            if time <= self.now:
                self._stop(self.children[name])
            else:
                self._wake_at(time)

    def _decided(self) -> Mapping[str, Decision]:
        world = self._world()
        self.decided += 1
        if self.decided % 20 == 0:
            self.decision_steps.append(steps(lambda: decide(world, self.now)))
        return decide(world, self.now)

    def _obey(self) -> bool:
        """True if that changed something at once."""
        decisions = self._decided()
        changed = False
        draining: set[str] = set()
        for name, decision in decisions.items():
            match decision:
                case Load():
                    self._load(self.models[name])
                    changed = True
                case Evict(victims):
                    self.evictions[name] += len(victims)
                    for victim in victims:
                        self._stop(self.children[victim])
                    changed = True
                case Drain():
                    draining.update(decision.held)
                case Wait(until):
                    assert until > self.now
                    self._wake_at(until)
                case Refuse():
                    self._check_refusal(self.models[name], decision)
                    self._turn_away(name, "refused")
                    changed = True
        return self._drain(draining) or changed

    def _drain(self, draining: set[str]) -> bool:
        changed = False
        for name, child in self.children.items():
            if child.state in (State.READY, State.DRAINING):
                state = State.DRAINING if name in draining else State.READY
                changed |= state is not child.state
                if child.state is State.READY:
                    child.held_since = self.now
                child.state = state
                if state is State.DRAINING and self.queues[name]:
                    self._stake(name)
        return changed

    def _world(self) -> World:
        residents = {
            name: Resident(
                name,
                child.model.need,
                child.state,
                held_since=child.held_since,
                in_flight=len(child.running),
                ready_at=child.ready_at,
                last_used=child.last_used,
                load_seconds=child.model.load_seconds,
                idle_unload=child.model.idle_unload,
                pinned=child.model.pinned,
            )
            for name, child in self.children.items()
        }
        claims = [
            claim
            for name, claim in self.claims.items()
            # Who was promised room waits until it is there.
            if not any(o in self.children and self._stops(o) for o in self.made_way[name])
        ]
        return World(residents, claims, self.budgets, self.max_loaded, self.groups, self.patience)

    # What has to be true

    def _check(self) -> None:
        held: Counter[str] = Counter()
        for child in self.children.values():
            held.update({**child.model.need, MODELS: 1})
            assert len(child.running) <= child.model.slots
        for device, budget in self.budgets.items():
            there = [child.model for child in self.children.values()]
            assert sum(ceil(m.need[device] * m.least) for m in there) <= budget
            assert held[device] <= budget or any(m.least < 1 for m in there), held
        assert not self.max_loaded or held[MODELS] <= self.max_loaded
        names = list(self.children)
        for one, other in ((a, b) for a in names for b in names if a != b):
            assert not any(group.separates(one, other) for group in self.groups)

    def _check_place(self, model: Model) -> None:
        """There is room; or it makes do with less than was measured, beside those that stay."""
        for device, budget in self.budgets.items():
            beside = [c.model for c in self.children.values() if c.model.need[device]]
            held = sum(other.need[device] for other in beside)
            if model.need[device] and held + model.need[device] > budget:
                assert model.least < 1
                assert all(other.pinned for other in beside)

    def _check_refusal(self, model: Model, refused: Refuse) -> None:
        if refused.status == 507:
            stay = Counter[str]()
            for child in self.children.values():
                if child.model.pinned and child.state is not State.STOPPING:
                    stay.update(child.model.need)
            short = [
                device
                for device, need in self._claim(model, self.now).least.items()
                if need and need + stay[device] > self.budgets[device]
            ]
            assert short, f"{model} is refused, though all that is lacking could go"

    # Little questions

    def _stops(self, name: str) -> bool:
        return self.children[name].state is State.STOPPING

    def _claim(self, model: Model, since: float) -> Claim:
        defect = "its file is broken" if model.fails == 1.0 else ""
        least = {device: ceil(need * model.least) for device, need in model.need.items()}
        return Claim(model.name, model.need, since, defect, least=least)

    def _admits(self, name: str) -> bool:
        return name in self.children and self.children[name].state is State.READY

    def _stake(self, name: str) -> None:
        if name not in self.claims:
            model = self.models[name]
            self.older_claims[name] = len(self.claims)
            self.claims[name] = self._claim(model, self.now)

    def _wake_at(self, time: float) -> None:
        if time < float("inf") and time not in self._alarms:
            self._alarms.add(time)
            self.at(time, lambda: None)


def quarters(chance: random.Random, most: float, least: float = 0.0) -> float:
    return chance.randint(int(least * 4), int(most * 4)) / 4


def scenario(seed: int) -> Pool:
    chance = random.Random(seed)
    devices = ["host", "CUDA0", "CUDA1"][: chance.randint(1, 3)]
    budgets = {device: chance.randint(4, 16) for device in devices}
    models = [any_model(chance, f"m{number}", budgets) for number in range(chance.randint(2, 9))]
    groups = tuple(
        Group(
            frozenset(chance.sample([model.name for model in models], 2)),
            together=chance.random() < 0.5,
            exclusive=chance.random() < 0.5,
        )
        for _ in range(chance.choice((0, 0, 0, 1, 2)))
    )
    pool = Pool(
        models,
        budgets,
        max_loaded=chance.choice((0, 0, 1, 2, 4)),
        groups=groups,
        patience=quarters(chance, 8),
        queue_size=chance.choice((3, 30)),
        chance=chance,
    )
    for _ in range(chance.randint(5, 60)):
        model = chance.choice(models)
        lasts = quarters(chance, LONGEST_ANSWER)
        arrives = quarters(chance, 30)
        request = pool.request(
            model.name, arrives, lasts, chance.choice(KEYS), chance.randint(0, 1)
        )
        if chance.random() < 0.2:
            pool.at(arrives + quarters(chance, 10), lambda request=request: pool.cancel(request))
    for _ in range(chance.choice((0, 0, 3))):
        name = chance.choice(models).name
        pool.at(quarters(chance, 40), lambda name=name: pool.crash(name))
    return pool


def any_model(chance: random.Random, name: str, budgets: dict[str, int]) -> Model:
    return Model(
        name,
        {device: chance.choice((0, 1, 3, 5, 8, 12)) for device in budgets},
        slots=chance.randint(1, 3),
        load_seconds=quarters(chance, LONGEST_LOAD, 0.25),
        stop_seconds=quarters(chance, LONGEST_STOP),
        pinned=chance.random() < 0.1,
        idle_unload=chance.choice((0.0, 0.0, 5.0)),
        fails=chance.choice((0.0, 0.0, 0.0, 0.3, 1.0)),
        least=chance.choice((1.0, 1.0, 0.5)),
        hidden=chance.choice((0, 0, 0, 2)),
    )


def test_in_no_scenario_is_memory_promised_twice_or_a_model_forgotten() -> None:
    ends: Counter[str] = Counter()
    evictions = 0
    for seed in range(SCENARIOS):
        try:
            pool = scenario(seed)
            pool.run()
        except BaseException as failure:
            failure.add_note(f"scenario({seed})")
            raise
        ends.update(request.end for request in pool.requests)
        evictions += pool.evictions.total()
    # Unless all of this happens often, the scenarios have not tested what they should.
    assert min(ends[e] for e in ("served", "refused", "cancelled", "not loaded", "lost")) > 100
    assert evictions > SCENARIOS


def test_idle_models_go_on_while_another_ones_long_answer_lasts_and_none_is_starved() -> None:
    models = [Model(name, {"host": 5}, slots=2, load_seconds=0.5) for name in "xy"]
    large = Model("b", {"host": 10}, load_seconds=0.5)
    pool = Pool([*models, large], {"host": 10}, patience=2.0, chance=random.Random(0))
    pool.request("x", 0.0, lasts=60.0)
    quick = [pool.request("y", float(second), lasts=0.25) for second in range(1, 60, 2)]
    lone = pool.request("b", 5.0, lasts=1.0)
    pool.run()
    assert max(request.ended - request.arrived for request in quick) < 2.0
    assert lone.end == "served"
    assert lone.ended < 60.0 + 5.0


def test_of_two_that_have_to_go_each_is_shut_no_longer_than_it_takes() -> None:
    models = [Model(name, {"host": 5}, slots=2, load_seconds=0.5) for name in "xy"]
    large = Model("b", {"host": 10}, load_seconds=0.5)
    pool = Pool(
        [*models, large], {"host": 10}, patience=2.0, queue_size=99, chance=random.Random(0)
    )
    for name, first in (("x", 0.0), ("y", 0.5)):
        pool.request(name, first, lasts=30.0 if name == "x" else 10.0)
    steady = [pool.request("xy"[n % 2], 12.0 + n / 4, lasts=5.0) for n in range(60)]
    lone = pool.request("b", 5.0, lasts=1.0)
    pool.run()
    assert lone.ended < 30.0 + 2 * 5.0 + 5.0
    early = [request for request in steady if request.model == "y" and request.arrived < 20]
    assert all(request.end == "served" for request in steady)
    assert min(request.ended for request in early) < 30.0


def test_steady_traffic_on_one_model_does_not_starve_another() -> None:
    steady = Model("a", {"host": 6}, slots=2, load_seconds=1.0, stop_seconds=0.5)
    other = Model("b", {"host": 6}, load_seconds=1.0)
    pool = Pool([steady, other], {"host": 10}, patience=4.0, chance=random.Random(0))
    for quarter in range(400):
        pool.request("a", quarter / 4, lasts=1.0, key=KEYS[quarter % 3])
    lone = pool.request("b", 10.1, lasts=1.0)
    pool.run()
    patience, answer, stop, load = 4.0, 1.0, 0.5, 1.0
    assert 10.1 + patience < lone.ended <= 10.1 + patience + answer + stop + load + answer


def test_two_busy_models_in_one_place_take_turns_and_not_with_every_request() -> None:
    models = [Model(name, {"host": 6}, load_seconds=1.0, stop_seconds=0.5) for name in "ab"]
    pool = Pool(models, {"host": 10}, patience=4.0, queue_size=1000, chance=random.Random(0))
    for quarter in range(200):
        pool.request("ab"[quarter % 2], quarter / 4, lasts=0.5)
    pool.run()
    assert all(request.end == "served" for request in pool.requests)
    lasted = pool.now
    assert pool.evictions.total() <= lasted / 4.0


def two_hundred_models(resident: int, requests: int) -> Pool:
    """Few of the models get most of the requests, as it is."""
    chance = random.Random(200)
    models = [Model(f"m{number}", {"CUDA0": 6, "host": 1}) for number in range(200)]
    budgets = {"CUDA0": 6 * resident, "host": 1000}
    pool = Pool(
        models, budgets, max_loaded=resident, patience=2.0, queue_size=requests, chance=chance
    )
    popularity = [1 / rank for rank in range(1, 201)]
    for model in chance.choices(models, popularity, k=requests):
        pool.request(model.name, chance.uniform(0, requests / 4), lasts=chance.uniform(0.1, 2))
    return pool


def test_a_decision_among_two_hundred_models_takes_no_time_to_speak_of() -> None:
    pool = two_hundred_models(resident=4, requests=10_000)
    pool.run()
    assert all(request.end == "served" for request in pool.requests)
    p99 = statistics.quantiles(pool.decision_steps, n=100)[-1]
    assert p99 < 5000  # it is 2000, which take a tenth of a millisecond

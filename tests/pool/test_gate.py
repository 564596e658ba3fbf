"""Gates let in as many as a child has slots for, in fair order, and forget nobody who waits."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.access.consumption import Consumption
from llamasup.children.keeper import Keeper
from llamasup.children.slots import Slots
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, PoolSettings
from llamasup.errors import LlamasupError, ModelUnavailable, QueueFull, QueueTimeout
from llamasup.pool.gate import Gate, Visit
from llamasup.pool.queue import Client
from llamasup.pool.work import Work
from llamasup.states import ChildState


class StubChild:
    """What of a child a gate looks at."""

    def __init__(self, slots: int) -> None:
        self.slots = Slots(slots)
        self.state = ChildState.READY
        self.users = 0

    def enter(self) -> None:
        self.users += 1

    def leave(self) -> None:
        self.users -= 1


class StubKeeper:
    """A keeper whose loads end when the test says so."""

    model = "stub"

    def __init__(self) -> None:
        self.plan = SimpleNamespace(slots=1)
        self.child: StubChild | None = None
        self.wishes = 0
        self._settled = trio.Event()
        self._failure: ModelUnavailable | None = None

    async def ready(self) -> StubChild:
        self.wishes += 1
        try:
            while self.child is None:
                await self._settled.wait()
                if self._failure:
                    raise self._failure
            return self.child
        finally:
            self.wishes -= 1

    def comes(self, slots: int = 2) -> None:
        if self.child is None:
            self.child = StubChild(slots)
            self._settle(None)

    def fails(self, words: str) -> None:
        if self.child is None:
            self._settle(ModelUnavailable(words))

    def goes(self) -> None:
        if self.child is not None:
            self.child.state = ChildState.STOPPING
            self.child.slots.closed.set()
            self.child = None

    def _settle(self, failure: ModelUnavailable | None) -> None:
        self._failure = failure
        self._settled.set()
        self._settled = trio.Event()


class Crowd:
    """Requests that come to a gate, are let in until they are done, or leave while they wait."""

    def __init__(self, gate: Gate, nursery: trio.Nursery) -> None:
        self.gate = gate
        self.waiting: list[int] = []
        self.guests: dict[int, Visit] = {}
        self.served: list[int] = []
        self.told: dict[int, str] = {}
        self._nursery = nursery
        self._scopes: list[trio.CancelScope] = []

    def comes(
        self,
        key: str = "",
        priority: int = 0,
        work: Work = Work.GENERATE,
        expected: bytes = b"",
    ) -> None:
        number = len(self._scopes)
        self._scopes.append(trio.CancelScope())
        self.waiting.append(number)
        visit = Visit(work, lambda: Client(key), priority, expected)
        self._nursery.start_soon(self._visit, number, visit)

    async def _visit(self, number: int, visit: Visit) -> None:
        with self._scopes[number]:
            try:
                await self.gate.enter(visit)
            except (ModelUnavailable, QueueFull, QueueTimeout) as error:
                self.told[number] = f"{error.status} {error}"
            else:
                self.guests[number] = visit
                self.served.append(number)
        self.waiting.remove(number)

    def leaves(self, place: int) -> None:
        """Somebody who waits gives up."""
        if self.waiting:
            self._scopes[self.waiting[place % len(self.waiting)]].cancel()

    def finishes(self, place: int) -> None:
        """Somebody who was let in is done."""
        if self.guests:
            number = list(self.guests)[place % len(self.guests)]
            self.gate.leave(self.guests.pop(number))


class Scene:
    """A gate, its keeper, and the crowd before it."""

    def __init__(self, nursery: trio.Nursery, **settings: Any) -> None:
        self.keeper = StubKeeper()
        self.idle: list[Gate] = []
        self.consumption = Consumption()
        whole = PoolSettings(**{"max_queue": 1000, "queue_timeout": 1e6, **settings})
        self.gate = Gate(
            cast(Keeper, self.keeper),
            nursery,
            InEffect(Config(pool=whole)),
            on_idle=self.idle.append,
            consumption=self.consumption,
        )
        self.crowd = Crowd(self.gate, nursery)

    async def crowd_of(self, *keys: str) -> None:
        """They come one after the other."""
        for key in keys:
            self.crowd.comes(key)
            await wait_all_tasks_blocked()

    async def served(self) -> list[int]:
        """Everybody in the order in which they are let in, one at a time."""
        while self.crowd.guests:
            self.crowd.finishes(0)
            await wait_all_tasks_blocked()
        return self.crowd.served


@asynccontextmanager
async def scene(**settings: Any) -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        yield Scene(nursery, **settings)
        nursery.cancel_scope.cancel()


places = st.integers(0, 9)
deeds = st.one_of(
    st.tuples(st.just("comes"), st.sampled_from("abc"), st.integers(0, 2)),
    st.tuples(st.just("leaves"), places),
    st.tuples(st.just("finishes"), places),
    st.tuples(st.just("child comes"), st.integers(1, 3)),
    st.tuples(st.just("child goes")),
    st.tuples(st.just("hold"), st.booleans()),
)
moments = st.lists(st.lists(deeds, min_size=1, max_size=4), max_size=12)
"""What is done at one moment is done before anybody can react to it."""


@example([[("comes", "a", 0)], [("child comes", 1), ("child goes",)]])
@example(
    [
        [("comes", "a", 0), ("comes", "a", 0)],
        [("child comes", 1), ("hold", True), ("hold", False), ("child goes",)],
    ]
)
@given(moments)
async def test_whatever_happens_no_request_is_forgotten_and_no_slot_is_overbooked_or_lost(
    moments: list[list[tuple[Any, ...]]],
) -> None:
    async with scene() as stage:
        crowd, keeper, gate = stage.crowd, stage.keeper, stage.gate
        act = {
            "comes": crowd.comes,
            "leaves": crowd.leaves,
            "finishes": crowd.finishes,
            "child comes": keeper.comes,
            "child goes": keeper.goes,
            "hold": gate.hold,
        }
        for moment in moments:
            for deed, *details in moment:
                act[deed](*details)
            await wait_all_tasks_blocked()
            child = keeper.child
            assert gate.waiting == len(crowd.waiting)
            guests = [v for v in crowd.guests.values() if child and v.child is cast(Any, child)]
            if child:
                assert child.slots.taken == child.users == len(guests) <= child.slots.size
            if crowd.waiting:
                assert gate.held or not child or not child.slots.free, "room, and somebody waits"
                assert child or keeper.wishes, "nobody sees to a child"
                assert (gate.shut_out_since is None) is (child is not None and not gate.held)
            else:
                assert not keeper.wishes, "nobody waits, and a child is wanted"
                assert gate.shut_out_since is None


async def test_requests_that_come_first_are_let_in_first() -> None:
    async with scene() as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "a", "a", "a")
        assert await stage.served() == [0, 1, 2, 3]


async def test_clients_take_turns_also_when_they_waited_for_the_load() -> None:
    async with scene() as stage:
        await stage.crowd_of("greedy", "greedy", "greedy", "modest")
        stage.keeper.comes(slots=1)
        await wait_all_tasks_blocked()
        assert await stage.served() == [0, 3, 1, 2]


async def test_a_higher_priority_comes_first() -> None:
    async with scene() as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "a")
        stage.crowd.comes("b", priority=1)
        await wait_all_tasks_blocked()
        assert await stage.served() == [0, 2, 1]


async def test_who_used_fewest_tokens_goes_first_and_not_all_slots_to_a_newcomer() -> None:
    async with scene(fair="tokens") as stage:
        now = trio.current_time()
        stage.consumption.add("much", 1000, now)
        stage.consumption.add("some", 500, now)
        stage.keeper.comes(slots=1)
        await stage.crowd_of("much", "much", "some", "new", "new", "new")
        assert await stage.served() == [0, 3, 4, 5, 2, 1]
        stage.keeper.goes()
        for _ in range(50):
            stage.consumption.add("others", 400, now)
        await stage.crowd_of("much", "some", "new", "new", "new", "new")
        stage.keeper.comes(slots=4)
        await wait_all_tasks_blocked()
        # After two of its requests, the newcomer has 800 tokens in flight, and the other one 500.
        assert sorted(stage.crowd.served[6:]) == [7, 8, 9, 10]


async def test_a_change_of_mind_about_what_is_fair_takes_effect_at_once() -> None:
    async with scene(fair="tokens") as stage:
        stage.consumption.add("much", 1000, trio.current_time())
        stage.keeper.comes(slots=1)
        await stage.crowd_of("much", "much", "new", "new")
        stage.gate._in_effect.replace(Config())
        assert await stage.served() == [0, 1, 2, 3]
        assert not stage.consumption._in_flight


async def test_what_needs_no_slot_waits_for_the_child_alone() -> None:
    async with scene() as stage:
        stage.crowd.comes(work=Work.ASK)
        await wait_all_tasks_blocked()
        assert stage.crowd.waiting == [0]
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "a")
        stage.crowd.comes(work=Work.ASK)
        await wait_all_tasks_blocked()
        assert stage.crowd.waiting == [2]


async def test_a_request_that_leaves_just_when_it_is_let_in_keeps_nothing() -> None:
    async with scene() as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "a", "a")
        stage.crowd.leaves(0)
        stage.crowd.finishes(0)
        await wait_all_tasks_blocked()
        assert stage.crowd.served == [0, 2]


async def test_all_requests_that_wait_for_a_load_are_told_why_it_failed() -> None:
    async with scene() as stage:
        await stage.crowd_of("a", "b")
        stage.keeper.fails("it is broken")
        await wait_all_tasks_blocked()
        assert stage.crowd.told == {0: "503 it is broken", 1: "503 it is broken"}


async def test_requests_that_wait_for_a_child_that_ends_are_let_in_to_the_next() -> None:
    async with scene() as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "a", "a")
        stage.keeper.goes()
        await wait_all_tasks_blocked()
        assert stage.crowd.served == [0]
        stage.keeper.comes(slots=2)
        await wait_all_tasks_blocked()
        assert set(stage.crowd.served) == {0, 1, 2}


async def test_a_held_gate_lets_no_request_in_until_it_is_open_again() -> None:
    async with scene() as stage:
        stage.keeper.comes()
        stage.gate.hold(True)
        await stage.crowd_of("a")
        assert stage.crowd.served == []
        assert stage.gate.shut_out_since is not None
        words = stage.gate.outlook(Visit(Work.GENERATE, Client, 0))
        assert words == "waiting for stub: others have their turn first"
        stage.gate.hold(False)
        await wait_all_tasks_blocked()
        assert stage.crowd.served == [0]


async def test_no_more_may_wait_than_may_wait() -> None:
    async with scene(max_queue=2) as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "a", "a", "a")
        assert stage.crowd.told == {
            3: '429 all slots of "stub" are busy, and 2 requests wait; ask again later'
        }


async def test_a_client_that_fills_the_queue_makes_way_for_others() -> None:
    async with scene(max_queue=3) as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("greedy", "greedy", "greedy", "greedy", "modest")
        words = '429 all slots of "stub" are busy, and 3 requests wait; ask again later'
        assert stage.crowd.told == {3: words}
        assert stage.gate.waiting == 3
        assert await stage.served() == [0, 1, 4, 2]


async def test_a_child_is_asked_few_things_at_once_and_chats_do_not_wait_for_them() -> None:
    async with scene() as stage:
        stage.keeper.comes(slots=1)
        for _ in range(300):
            stage.crowd.comes("greedy", work=Work.ASK)
        await wait_all_tasks_blocked()
        assert len(stage.crowd.served) == 8
        stage.crowd.comes("modest", work=Work.ASK)  # the 300th
        await wait_all_tasks_blocked()
        stage.crowd.comes("modest")
        await wait_all_tasks_blocked()
        assert stage.crowd.served[8:] == [301]
        stage.crowd.finishes(0)
        stage.crowd.finishes(0)
        await wait_all_tasks_blocked()
        assert 300 in stage.crowd.served[9:11]
        assert len(await stage.served()) == 302


async def test_a_full_queue_may_be_told_as_exhausted_slots() -> None:
    async with scene(max_queue=0, queue_full_status=503) as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "a")
        assert stage.crowd.told == {
            1: '503 all slots of "stub" are busy, and 0 requests wait; ask again later'
        }


async def test_where_no_request_may_wait_for_a_slot_one_may_still_wait_for_the_load() -> None:
    async with scene(max_queue=0) as stage:
        await stage.crowd_of("a", "b")
        stage.keeper.comes(slots=1)
        await stage.crowd_of("c")
        assert stage.crowd.served == [0]
        assert stage.crowd.told.keys() == {1, 2}


async def test_requests_that_will_have_a_slot_after_the_load_do_not_count_as_waiting() -> None:
    async with scene(max_queue=1) as stage:
        stage.keeper.plan.slots = 3
        await stage.crowd_of("a", "b", "c", "d", "e")
        assert stage.crowd.told.keys() == {4}
        stage.keeper.comes(slots=3)
        await wait_all_tasks_blocked()
        assert set(stage.crowd.served) == {0, 1, 2}


async def test_a_failed_load_is_remembered_without_the_requests_that_waited_for_it() -> None:
    failure = ModelUnavailable("it is broken")
    failure.retry_after = 3.0
    async with scene() as stage, trio.open_nursery() as nursery:
        told: list[LlamasupError] = []
        bodies = weakref.WeakSet[Body]()

        async def visit(body: Body) -> None:
            try:
                await stage.gate.enter(Visit(Work.GENERATE, Client, 0))
            except ModelUnavailable as error:
                told.append(error)

        for _ in range(3):
            nursery.start_soon(visit, body := Body())
            bodies.add(body)
        del body
        await wait_all_tasks_blocked()
        stage.gate.turn_away(failure)
        await wait_all_tasks_blocked()
        assert {(type(error), str(error), error.retry_after) for error in told} == {
            (ModelUnavailable, "it is broken", 3.0)
        }
        told.clear()
        gc.collect()
        assert not bodies


class Body:
    """Of a request; it may be large."""


async def test_no_request_waits_longer_than_the_queue_timeout(autojump_clock: MockClock) -> None:
    async with scene(queue_timeout=60) as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "a")
        await trio.sleep(61)
        told = stage.crowd.told[1]
        assert told.startswith('504 "stub" had no time for this request within 60 s; ask again')
        assert stage.gate.waiting == 0


async def test_who_waits_goes_back_to_a_llamasup_in_front_when_others_have_their_turn() -> None:
    async with scene() as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "own")
        stage.crowd.comes("guest", expected=b"loaded")
        await wait_all_tasks_blocked()
        stage.gate.hold(True)
        await wait_all_tasks_blocked()
        assert stage.crowd.told == {2: '503 "stub" is not here as expected (loaded)'}
        assert stage.crowd.waiting == [1]
        stage.crowd.comes("guest", expected=b"loaded")
        await wait_all_tasks_blocked()
        assert 3 in stage.crowd.told
        stage.gate.hold(False)
        assert await stage.served() == [0, 1]


async def test_only_who_expects_a_loaded_model_does_not_wait_for_its_load() -> None:
    async with scene() as stage:
        for expected in (b"loaded", b"loads", b"fits"):
            stage.crowd.comes(expected=expected)
        await wait_all_tasks_blocked()
        assert list(stage.crowd.told) == [0]
        stage.keeper.comes(slots=2)
        await wait_all_tasks_blocked()
        assert sorted(stage.crowd.served) == [1, 2]


async def test_a_waiting_client_can_see_how_many_come_before() -> None:
    async with scene() as stage:
        stage.keeper.comes(slots=1)
        await stage.crowd_of("a", "a", "a")
        visit = Visit(Work.GENERATE, lambda: Client("b"), 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.gate.enter, visit)
            await wait_all_tasks_blocked()
            assert stage.gate.outlook(visit) == "waiting for a slot of stub, 1 before you"
            stage.crowd.finishes(0)
            await wait_all_tasks_blocked()
            assert stage.gate.outlook(visit) == "waiting for a slot of stub, you are next"
            nursery.cancel_scope.cancel()


async def test_the_gate_says_once_that_no_request_is_left() -> None:
    async with scene() as stage:
        stage.keeper.comes(slots=2)
        await stage.crowd_of("a", "a")
        stage.crowd.finishes(0)
        assert stage.idle == []
        stage.crowd.finishes(0)
        assert stage.idle == [stage.gate]

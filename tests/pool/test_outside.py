"""Requests before instances elsewhere: who goes where, who waits, and who is told to go."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.endpoints.answers import Offer
from llamasup.endpoints.balance import Where
from llamasup.errors import (
    EndpointsAway,
    ModelNotFound,
    ModelNotLoaded,
    QueueFull,
    QueueTimeout,
)
from llamasup.pool.outside import Errand, Outside
from llamasup.pool.work import Work
from tests.pool.fleets import StillFleet, errand, outside_of


async def entered(outside: Outside, one: Errand, order: list[str], name: str = "") -> None:
    await outside.enter(one)
    order.append(name or str(one.instance))


async def test_requests_spread_over_idle_instances(autojump_clock: MockClock) -> None:
    fleet = StillFleet()
    for name in "abc":
        fleet.add(name, slots=2)
    outside = outside_of(fleet)
    order: list[str] = []
    for _ in range(6):
        await entered(outside, errand(), order)
    assert sorted(order) == list("aabbcc")


async def test_who_waits_gets_the_next_free_slot_of_any_instance_and_clients_take_turns(
    autojump_clock: MockClock,
) -> None:
    fleet = StillFleet()
    fleet.add("a")
    fleet.add("b")
    outside = outside_of(fleet)
    first = [errand(), errand()]
    order: list[str] = []
    for one in first:
        await outside.enter(one)
    async with trio.open_nursery() as nursery:
        for client in ("greedy", "greedy", "other"):
            nursery.start_soon(entered, outside, errand(client=client), order, client)
            await wait_all_tasks_blocked()
        assert outside.waiting("m") == 3
        for one in first:
            outside.leave(one)
            await wait_all_tasks_blocked()
        assert order == ["greedy", "other"]
        nursery.cancel_scope.cancel()
    assert outside.waiting("m") == 0


async def test_an_instance_that_was_tried_comes_last(autojump_clock: MockClock) -> None:
    fleet = StillFleet()
    fleet.add("a")
    fleet.add("b")
    outside = outside_of(fleet)
    order: list[str] = []
    await entered(outside, errand(tried="a"), order)
    await entered(outside, errand(tried="a"), order)
    assert order == ["b", "a"]


async def test_questions_need_no_slot(autojump_clock: MockClock) -> None:
    fleet = StillFleet()
    busy = fleet.add("a")
    outside = outside_of(fleet)
    await outside.enter(errand())
    assert await outside.enter(errand(work=Work.ASK)) is busy


async def test_a_look_takes_what_is_loaded_and_waits_for_nothing(autojump_clock: MockClock) -> None:
    fleet = StillFleet()
    cold, warm = fleet.add("cold"), fleet.add("warm")
    cold.offers = {"m": Offer("m", where=Where.FITS)}
    outside = outside_of(fleet)
    look = errand(work=Work.LOOK)
    assert outside.to_look_at(look) is warm
    for instance in (cold, warm):
        instance.unreachable("away")
    with pytest.raises(ModelNotLoaded, match="cold is unreachable"):
        outside.to_look_at(look)


async def test_a_request_waits_for_instances_that_are_away_as_long_as_they_may_need(
    autojump_clock: MockClock,
) -> None:
    fleet = StillFleet()
    box = fleet.add("box", cold_start_timeout=30)
    box.unreachable("Connection refused")
    outside = outside_of(fleet)
    began = trio.current_time()
    with pytest.raises(EndpointsAway, match=r"box is unreachable \(Connection refused\)") as caught:
        await outside.enter(errand())
    assert trio.current_time() - began == pytest.approx(30)
    assert caught.value.retry_after is not None
    box.loads()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outside.enter, errand())
        await trio.sleep(29)
        box.served()


async def test_an_instance_that_refuses_us_is_not_waited_for(autojump_clock: MockClock) -> None:
    fleet = StillFleet()
    fleet.add("box").refused("it refuses our key")
    began = trio.current_time()
    with pytest.raises(EndpointsAway, match="refusing"):
        await outside_of(fleet).enter(errand())
    assert trio.current_time() == began


async def test_a_queue_has_its_bounds(autojump_clock: MockClock) -> None:
    fleet = StillFleet()
    fleet.add("a")
    outside = outside_of(fleet, pool__max_queue=1, pool__queue_timeout=5)
    await outside.enter(errand())
    async with trio.open_nursery() as nursery:

        async def waits_in_vain() -> None:
            with pytest.raises(QueueTimeout):
                await outside.enter(errand())

        nursery.start_soon(waits_in_vain)
        await wait_all_tasks_blocked()
        with pytest.raises(QueueFull, match="all instances"):
            await outside.enter(errand())


async def test_requests_for_a_model_that_goes_are_told(autojump_clock: MockClock) -> None:
    fleet = StillFleet()
    fleet.add("a")
    outside = outside_of(fleet)
    await outside.enter(errand())
    async with trio.open_nursery() as nursery:

        async def is_told() -> None:
            with pytest.raises(ModelNotFound):
                await outside.enter(errand())

        nursery.start_soon(is_told)
        await wait_all_tasks_blocked()
        fleet.models.clear()
        outside.admit()


async def test_a_request_may_wait_again_after_it_was_let_in(autojump_clock: MockClock) -> None:
    fleet = StillFleet()
    box = fleet.add("box")
    outside = outside_of(fleet)
    holder, waits = errand(), errand()
    for _ in range(2):
        await outside.enter(holder)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outside.enter, waits)
            await wait_all_tasks_blocked()
            assert waits.instance is None
            outside.leave(holder)
        assert waits.instance is box
        outside.leave(waits)


async def test_a_trial_is_one_request(autojump_clock: MockClock) -> None:
    fleet = StillFleet()
    box = fleet.add("box", slots=4)
    outside = outside_of(fleet)
    box.failed("reset")
    box.health.answered(trio.current_time())
    await trio.sleep(3)
    assert outside.try_enter(errand())
    assert not outside.try_enter(errand())
    box.served()
    assert outside.try_enter(errand())


async def test_two_busy_instances_and_a_cancellation_leave_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    fleet = StillFleet()
    box = fleet.add("box")
    outside = outside_of(fleet)
    holder = errand()
    await outside.enter(holder)
    for _ in range(3):
        with trio.move_on_after(1):
            await outside.enter(errand())
    outside.leave(holder)
    assert (box.in_flight, outside.waiting("m")) == (0, 0)


async def test_a_request_that_waits_for_a_load_is_taken_back_when_a_copy_gets_free(
    autojump_clock: MockClock,
) -> None:
    fleet = StillFleet()
    cold, warm = fleet.add("cold"), fleet.add("warm")
    cold.offers = {"m": Offer("m", slots=2, where=Where.FITS)}
    outside = outside_of(fleet)
    first, *early = errand(), errand(), errand()
    recalled: list[Errand] = []

    def recall(one: Errand) -> bool:
        recalled.append(one)
        return True

    for one in (first, *early):
        await outside.enter(one)
        one.recall = lambda one=one: recall(one)  # type: ignore[misc]
    assert [one.instance for one in (first, *early)] == [warm, cold, cold]
    outside.leave(first)
    assert recalled == early[:1]
    outside.leave(early[0])
    assert await outside.enter(errand()) is warm
    recalled.clear()
    outside.admit()
    assert recalled == []

"""What all requests hold has one bound; who holds the most waits, and is sent away."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.front.rooms import SMALL, Hold, OutOfRoom, Part, Room


async def hold(room: Room, holder: str, amount: int) -> None:
    await room.take(holder, amount)


async def test_a_client_that_wants_too_much_waits_until_there_is_room(
    autojump_clock: MockClock,
) -> None:
    room = Room(100, "too much")
    await room.take("a", 50)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, room, "a", 20)
        await wait_all_tasks_blocked()
        assert room.taken == 50
        await room.take("b", 25)  # somebody else need not wait
        room.give_back("a", 40)
    assert room.taken == 55


async def test_a_client_that_waits_in_vain_is_told_so(autojump_clock: MockClock) -> None:
    room = Room(100, "too much of it")
    await room.take("a", 50)
    began = trio.current_time()
    with pytest.raises(OutOfRoom, match="too much of it") as refusal:
        await room.take("a", 1)
    assert trio.current_time() - began == 10
    assert refusal.value.status == 503
    assert refusal.value.retry_after
    room.give_back("a", 50)
    assert room.taken == 0


async def test_of_one_client_the_first_is_the_first(autojump_clock: MockClock) -> None:
    room = Room(100, "too much")
    await room.take("a", 50)
    order: list[int] = []

    async def wait(number: int) -> None:
        await room.take("a", 10)
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
            await wait_all_tasks_blocked()
        assert not room.take_now("a", 1)
        for _ in range(3):
            room.give_back("a", 10)
            await wait_all_tasks_blocked()
    assert order == [0, 1, 2]


async def test_a_client_that_leaves_while_it_waits_has_taken_nothing() -> None:
    room = Room(100, "too much")
    await room.take("a", 50)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, room, "a", 20)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    room.give_back("a", 50)
    assert room.taken == 0


async def test_a_client_that_leaves_lets_in_the_one_behind_it() -> None:
    room = Room(100, "too much")
    await room.take("b", 40)
    async with trio.open_nursery() as patient, trio.open_nursery() as impatient:
        impatient.start_soon(hold, room, "a", 70)
        await wait_all_tasks_blocked()
        patient.start_soon(hold, room, "a", 30)
        await wait_all_tasks_blocked()
        impatient.cancel_scope.cancel()
    assert room.taken == 70


async def test_more_room_lets_in_waiting_clients() -> None:
    room = Room(100, "too much")
    await room.take("a", 50)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, room, "a", 50)
        await wait_all_tasks_blocked()
        room.resize(200)
    assert room.taken == 100


# --- what one request holds ---


async def test_all_that_a_request_holds_is_given_back_together(autojump_clock: MockClock) -> None:
    room = Room(10 * SMALL, "too much")
    hold = Hold(room, "a")
    await hold.take(SMALL)
    assert hold.take_now(2 * SMALL)
    with hold.counting(SMALL):
        assert room.taken == 4 * SMALL
    hold.give_back(SMALL)
    assert room.taken == hold.amount == 2 * SMALL
    hold.release()
    hold.release()
    assert room.taken == hold.amount == 0


async def test_what_is_small_never_waits_but_counts(autojump_clock: MockClock) -> None:
    room = Room(4 * SMALL, "too much")
    greedy, small = Hold(room, "a"), Hold(room, "a")
    await greedy.take(2 * SMALL)
    assert not small.take_now(1)
    await small.take(SMALL)
    assert room.taken == 3 * SMALL
    with pytest.raises(OutOfRoom):
        await small.take(1)
    assert small.amount == SMALL


async def test_what_is_held_anyway_makes_others_wait_sooner(autojump_clock: MockClock) -> None:
    room = Room(100, "too much")
    with Hold(room, "a").counting(80):
        assert not room.take_now("b", 30)
    assert room.take_now("b", 30)


@given(st.lists(st.tuples(st.sampled_from("tcgpr"), st.integers(0, 400)), max_size=30))
def test_the_room_has_taken_what_the_requests_hold(deeds: list[tuple[str, int]]) -> None:
    room = Room(1000, "too much")
    holds = [Hold(room, "a"), Hold(room, "a"), Hold(room, "b")]
    parts = [Part(hold) for hold in holds]
    for number, (deed, amount) in enumerate(deeds):
        hold, part = holds[number % 3], parts[number % 3]
        match deed:
            case "t":
                hold.take_now(amount)
            case "c":
                hold.count(amount)
            case "g":
                part.grow(amount)
            case "p":
                part.resize(amount)
            case "r":
                hold.release()
                parts[number % 3] = Part(hold)
        assert room.taken == sum(each.amount for each in holds)
        assert all(each.amount >= 0 for each in holds)
    for hold in holds:
        hold.release()
    assert room.taken == 0


def test_a_part_without_room_is_not_held() -> None:
    room = Room(100, "too much")
    part = Part(Hold(room, "a"))
    assert part.resize(40)
    assert part.resize(50)
    assert room.taken == 50
    assert not part.resize(51)
    assert room.taken == 0
    assert part.resize(20)
    assert part.resize(0)
    assert room.taken == 0
    part.grow(500)
    assert room.taken == 500
    assert part.resize(0)
    assert room.taken == 0
    assert Part(None).resize(1 << 60)

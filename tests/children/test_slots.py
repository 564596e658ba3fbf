"""Slots are never overbooked, are given first come first served, and none is ever lost."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from llamasup.children.slots import Slots, SlotsClosed


class Crowd:
    """Requests that come for a slot, hold it until they are told, or leave while they wait."""

    def __init__(self, slots: Slots, nursery: trio.Nursery) -> None:
        self.slots = slots
        self.queue: list[int] = []
        self.holders: list[int] = []
        self.served: list[int] = []
        self.turned_away: list[int] = []
        self._nursery = nursery
        self._scopes: list[trio.CancelScope] = []

    def comes(self) -> None:
        number = len(self._scopes)
        self._scopes.append(trio.CancelScope())
        self.queue.append(number)
        self._nursery.start_soon(self._wait, number)

    async def _wait(self, number: int) -> None:
        with self._scopes[number]:
            try:
                await self.slots.take()
            except SlotsClosed:
                self.turned_away.append(number)
            else:
                self.holders.append(number)
                self.served.append(number)
        self.queue.remove(number)

    def leaves(self, place: int) -> None:
        """Somebody who waits gives up."""
        if self.queue:
            self._scopes[self.queue[place % len(self.queue)]].cancel()

    def finishes(self, place: int) -> None:
        """Somebody who holds a slot gives it back."""
        if self.holders:
            del self.holders[place % len(self.holders)]
            self.slots.give_back()


places = st.integers(0, 9)
deeds = st.one_of(
    st.tuples(st.just("comes")),
    st.tuples(st.just("leaves"), places),
    st.tuples(st.just("finishes"), places),
    st.tuples(st.just("resize"), st.integers(1, 4)),
)
moments = st.lists(st.lists(deeds, min_size=1, max_size=4), max_size=12)
"""What is done at one moment is done before anybody can react to it."""


@given(st.integers(1, 3), moments)
async def test_whatever_happens_slots_are_neither_overbooked_nor_lost(
    size: int, moments: list[list[tuple[str, int]]]
) -> None:
    slots = Slots(size)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(slots, nursery)
        for moment in moments:
            before = len(crowd.holders)
            sizes = [slots.size, *(details[0] for deed, *details in moment if deed == "resize")]
            for deed, *details in moment:
                getattr(slots if deed == "resize" else crowd, deed)(*details)
            await wait_all_tasks_blocked()
            assert slots.taken == len(crowd.holders) <= max(before, *sizes)
            assert slots.waiting == len(crowd.queue)
            assert not crowd.queue or slots.taken >= slots.size, "a free slot, and somebody waits"
        while crowd.holders:
            crowd.finishes(0)
            await wait_all_tasks_blocked()
        assert slots.taken == 0
        assert not crowd.queue


@given(st.lists(st.booleans(), max_size=30), places)
async def test_slots_are_given_first_come_first_served(coming: list[bool], leaver: int) -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(Slots(2), nursery)
        for somebody_comes in [True, True, True, *coming]:
            if somebody_comes:
                crowd.comes()
            else:
                crowd.finishes(leaver)
            await wait_all_tasks_blocked()
        crowd.leaves(leaver)
        while crowd.holders:
            crowd.finishes(0)
            await wait_all_tasks_blocked()
    assert crowd.served == sorted(crowd.served)


async def test_somebody_who_leaves_just_when_a_slot_becomes_free_does_not_keep_it() -> None:
    slots = Slots(1)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(slots, nursery)
        for _ in range(3):
            crowd.comes()
            await wait_all_tasks_blocked()
        crowd.leaves(0)
        crowd.finishes(0)
        await wait_all_tasks_blocked()
        assert crowd.served == [0, 2]


async def test_everybody_who_waits_is_turned_away_when_the_child_goes() -> None:
    slots = Slots(1)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(slots, nursery)
        for _ in range(4):
            crowd.comes()
            await wait_all_tasks_blocked()
        crowd.leaves(0)
        slots.close()
        await wait_all_tasks_blocked()
        assert set(crowd.turned_away) == {2, 3}
        assert crowd.holders == [0]
    with pytest.raises(SlotsClosed):
        await slots.take()


async def test_a_slot_is_given_back_to_closed_slots() -> None:
    slots = Slots(1)
    await slots.take()
    slots.close()
    slots.give_back()
    assert slots.taken == 0


async def test_fewer_slots_take_effect_as_they_are_given_back() -> None:
    slots = Slots(3)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(slots, nursery)
        for _ in range(4):
            crowd.comes()
            await wait_all_tasks_blocked()
        slots.resize(1)
        crowd.finishes(0)
        crowd.finishes(0)
        await wait_all_tasks_blocked()
        assert crowd.holders == [2]
        crowd.finishes(0)
        await wait_all_tasks_blocked()
        assert crowd.holders == [3]


async def test_more_slots_serve_those_who_wait_at_once() -> None:
    slots = Slots(1)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(slots, nursery)
        for _ in range(4):
            crowd.comes()
            await wait_all_tasks_blocked()
        slots.resize(3)
        await wait_all_tasks_blocked()
        assert set(crowd.holders) == {0, 1, 2}
        crowd.leaves(0)

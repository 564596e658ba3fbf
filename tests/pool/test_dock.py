"""Suspects are tried alone; innocents go on, beside none of them, and wait for a while at most."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.access.consumption import Consumption
from llamasup.children.keeper import Keeper
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config
from llamasup.pool.dock import TRIAL, TRIALS, VAIN_SESSIONS
from llamasup.pool.gate import Gate, Visit
from llamasup.pool.queue import Client
from llamasup.pool.work import Work
from tests.harness import tasks
from tests.pool.test_gate import StubKeeper


class Court:
    """A gate, and those who came to it, by name."""

    def __init__(self, gate: Gate, nursery: trio.Nursery) -> None:
        self.inside: list[str] = []
        self._gate = gate
        self._nursery = nursery
        self._done: dict[str, trio.Event] = {}
        self._scopes: dict[str, trio.CancelScope] = {}

    async def come(self, *names: str) -> None:
        """Who is called a suspect is one."""
        for name in names:
            self._done[name], self._scopes[name] = trio.Event(), trio.CancelScope()
            self._nursery.start_soon(self._visit, name)
            await wait_all_tasks_blocked()

    async def go(self, *names: str) -> None:
        for name in names:
            self._done[name].set()
        await wait_all_tasks_blocked()

    async def give_up(self, name: str) -> None:
        self._scopes[name].cancel()
        await wait_all_tasks_blocked()

    async def _visit(self, name: str) -> None:
        visit = Visit(Work.GENERATE, Client, 0)
        visit.alone = name.startswith("suspect")
        with self._scopes[name]:
            await self._gate.enter(visit)
            self.inside.append(name)
            try:
                await self._done[name].wait()
            finally:
                self.inside.remove(name)
                self._gate.leave(visit)


@asynccontextmanager
async def court(slots: int = 4) -> AsyncIterator[tuple[Court, StubKeeper]]:
    keeper = StubKeeper()
    async with trio.open_nursery() as nursery:
        gate = Gate(
            cast(Keeper, keeper),
            nursery,
            InEffect(Config()),
            cast(Any, lambda gate: None),
            Consumption(),
        )
        yield Court(gate, nursery), keeper
        nursery.cancel_scope.cancel()


async def test_after_a_death_suspects_are_tried_first_and_one_at_a_time(
    autojump_clock: MockClock,
) -> None:
    async with court() as (room, keeper):
        await room.come("a", "suspect 1", "b", "suspect 2")
        keeper.comes(slots=4)
        await wait_all_tasks_blocked()
        assert room.inside == ["suspect 1"]
        await room.go("suspect 1")
        assert room.inside == ["suspect 2"]
        await room.go("suspect 2")
        assert sorted(room.inside) == ["a", "b"]


async def test_a_suspect_that_does_no_harm_for_a_while_goes_on_beside_the_next_one(
    autojump_clock: MockClock,
) -> None:
    async with court() as (room, keeper):
        await room.come("suspect 1", "suspect 2", "a")
        keeper.comes(slots=4)
        await trio.sleep(TRIAL)
        assert room.inside == ["suspect 1", "suspect 2"]
        await trio.sleep(TRIAL)
        assert room.inside == ["suspect 1", "suspect 2", "a"]


async def test_no_suspect_is_tried_beside_an_innocent_and_innocents_wait_for_a_while_at_most(
    autojump_clock: MockClock,
) -> None:
    async with court() as (room, keeper):
        keeper.comes(slots=4)
        await room.come("a", "suspect", "b")
        assert room.inside == ["a"]
        await trio.sleep(TRIALS - 1)
        assert room.inside == ["a"]
        await trio.sleep(2)
        assert room.inside == ["a", "b"]
        await room.come("c")
        assert room.inside == ["a", "b", "c"]
        await room.go("a", "b", "c")
        assert room.inside == ["suspect"]


async def test_when_the_suspect_gives_up_the_others_go_on_at_once(
    autojump_clock: MockClock,
) -> None:
    async with court() as (room, keeper):
        keeper.comes(slots=4)
        await room.come("a", "suspect", "b")
        began = trio.current_time()
        await room.give_up("suspect")
        assert sorted(room.inside) == ["a", "b"]
        assert trio.current_time() == began


async def test_many_suspects_have_less_time_each(autojump_clock: MockClock) -> None:
    async with court() as (room, keeper):
        await room.come(*(f"suspect {number}" for number in range(16)), "a")
        keeper.comes(slots=32)
        await trio.sleep(2 * TRIALS)
        assert "a" in room.inside
        assert len(room.inside) == 17


async def test_if_no_suspect_can_ever_be_alone_suspects_wait_like_all_others(
    autojump_clock: MockClock,
) -> None:
    """For as long as one answer takes, others would be held up half of the time."""
    async with court() as (room, keeper):
        keeper.comes(slots=4)
        await room.come("a", "suspect")
        await trio.sleep(2 * VAIN_SESSIONS * TRIALS)
        assert room.inside == ["a", "suspect"]
        began = trio.current_time()
        await room.come("b")
        assert room.inside == ["a", "suspect", "b"]
        await room.go("a", "suspect", "b")
        await trio.sleep(TRIALS)
        await room.come("suspect 2", "c")
        assert room.inside == ["suspect 2"]
        assert trio.current_time() == began + TRIALS


async def test_no_clock_goes_on_for_a_visit_that_is_over(autojump_clock: MockClock) -> None:
    async with court() as (room, keeper):
        keeper.comes(slots=4)
        at_rest = tasks()
        for number in range(9):
            await room.come(f"suspect {number}")
            await room.go(f"suspect {number}")
        assert tasks() == at_rest

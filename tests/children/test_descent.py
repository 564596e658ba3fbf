"""Out of memory: first the idle go, then the context."""

from __future__ import annotations

import pytest
import trio

from llamasup import events
from llamasup.children.keeper import Keeper
from llamasup.memory.ladder import Rung
from llamasup.states import ChildState
from tests.children.keeping import (
    LADDER,
    NO_ROOM,
    Fake,
    Planning,
    contexts,
    keeping,
    kill,
)
from tests.children.landlord import RoomForAll
from tests.harness import Journal


async def test_the_idle_go_one_after_the_other_before_a_load_takes_less_context(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    plan = planning({**faking(*NO_ROOM, "16384"), **LADDER})
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.idle = ["a", "b", "c", "d"]
        keeper = Keeper(plan, house, events.Journal(), nursery)
        await keeper.ready()
        assert house.gone == ["a", "b", "c", "d"]
        assert keeper.rung == Rung(16384)
        nursery.cancel_scope.cancel()
    assert contexts(journal) == ["32768"] * 4 + ["16384"]


async def test_a_load_after_an_idle_model_was_unloaded_keeps_its_context_and_learns_nothing(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    config = {**faking(*NO_ROOM, "0", "--fake-scripted-lives", "1"), **LADDER}
    plan = planning(config)
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.idle = ["a"]
        keeper = Keeper(plan, house, events.Journal(), nursery)
        await keeper.ready()
        assert await plan.learned() is None
        nursery.cancel_scope.cancel()
    assert contexts(journal) == ["32768", "32768"]


async def test_a_child_that_runs_out_of_memory_keeps_its_context_if_a_model_can_be_unloaded(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.idle = ["a"]
        keeper = Keeper(
            planning({**faking(), "ladder.contexts": [4096]}), house, events.Journal(), nursery
        )
        for expected in (True, False):
            child = await keeper.ready()
            assert keeper.note_out_of_memory(child, "bad_alloc") is expected
        assert house.gone == ["a"]
        nursery.cancel_scope.cancel()
    assert contexts(journal) == ["4096", "4096"]


async def test_a_model_that_comes_back_is_not_unloaded_again_before_a_step_down(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.idle = ["a"]
        keeper = Keeper(planning({**faking(), **LADDER}), house, events.Journal(), nursery)
        for _ in range(3):
            keeper.note_out_of_memory(await keeper.ready(), "bad_alloc")
            house.gone.clear()
        await keeper.ready()
        nursery.cancel_scope.cancel()
    assert contexts(journal) == ["32768", "32768", "16384", "8192"]


async def test_many_requests_of_one_child_that_run_out_of_memory_are_one_step(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning({**faking(), **LADDER})) as keeper:
        first = await keeper.ready()
        for _ in range(3):
            first.enter()
        assert [keeper.note_out_of_memory(first, "bad_alloc") for _ in range(3)] == [True] * 3
        assert first.state is ChildState.RETIRING
        for _ in range(3):
            assert keeper.child is first
            first.leave()
        second = await keeper.ready()
        assert keeper.rung == Rung(16384)
        # News of the first one does not touch the second.
        assert keeper.note_out_of_memory(first, "bad_alloc")
        assert second.state is ChildState.READY
    assert contexts(journal) == ["32768", "16384"]


async def test_on_the_last_rung_a_child_that_runs_out_of_memory_stays(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning({**faking(), "ladder.contexts": [4096]})) as keeper:
        child = await keeper.ready()
        assert not keeper.note_out_of_memory(child, "bad_alloc")
        assert child.state is ChildState.READY
        assert str(keeper.exhausted("bad_alloc")).startswith(
            'model "fake" ran out of memory; tried context 4096: bad_alloc. Ask for less'
        )


async def test_a_child_that_the_kernel_killed_for_memory_is_followed_by_a_smaller_one(
    faking: Fake, planning: Planning, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    monkeypatch.setattr("llamasup.memory.host.oom_kills", lambda: kills)
    async with keeping(planning({**faking(), **LADDER})) as keeper:
        await keeper.ready()
        kills = 1
        await kill(keeper)
        await keeper.ready()
    assert contexts(journal) == ["32768", "16384"]


# --- what is remembered ---


@pytest.mark.parametrize(("sufferers", "remembered"), [(1, Rung(32768)), (2, Rung(16384))])
async def test_a_rung_is_remembered_when_a_second_request_suffers_it(
    faking: Fake, planning: Planning, sufferers: int, remembered: Rung
) -> None:
    async with keeping(planning({**faking(), **LADDER})) as keeper:
        first = await keeper.ready()
        first.enter()
        for _ in range(sufferers):
            assert keeper.note_out_of_memory(first, "bad_alloc")
        first.leave()
        assert await keeper.ready() is not first
        assert keeper.rung == Rung(16384)
        assert await loaded_again(keeper) == remembered


async def test_what_the_kernel_did_is_remembered(
    faking: Fake, planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    monkeypatch.setattr("llamasup.memory.host.oom_kills", lambda: kills)
    async with keeping(planning({**faking(), **LADDER})) as keeper:
        await keeper.ready()
        kills = 1
        await kill(keeper)
        await keeper.ready()
        assert await loaded_again(keeper) == Rung(16384)


async def loaded_again(keeper: Keeper) -> Rung | None:
    """The rung on which it begins after an unload."""
    keeper.unload()
    await keeper.until_idle()
    await keeper.ready()
    return keeper.rung

"""A keeper starts one child for all who wait, tells all of them the same, and starts anew."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import evolve

from llamasup.children.child import Child
from llamasup.children.keeper import Keeper
from llamasup.children.plan import Plan
from llamasup.children.restarts import MOST_FAILED_STARTS
from llamasup.errors import (
    LlamasupError,
    ModelFileMissing,
    ModelNotFound,
    ModelUnavailable,
    NotAdmitted,
    OutOfMemory,
)
from llamasup.memory.ladder import Rung
from llamasup.memory.room import Amounts
from llamasup.processes.run_folder import RunFolder
from llamasup.states import ChildState, KeeperState
from tests.children.landlord import NOTHING_KNOWN, House, RoomForAll
from tests.harness import FAKE, Journal, eventually, is_alive

Fake = Callable[..., Mapping[str, object]]
Planning = Callable[[Mapping[str, object]], Plan]

NO_ROOM = ("--fake-fail-load", "failed to allocate buffer for kv cache", "--fake-fail-above-ctx")
HOPELESS = ("--fake-fail-load", "unknown model architecture: 'x'")
LADDER = {"ladder.contexts": [32768, 16384, 8192]}


@asynccontextmanager
async def keeping(plan: Plan, free: Amounts = NOTHING_KNOWN) -> AsyncIterator[Keeper]:
    """A keeper, until the end of the block."""
    async with trio.open_nursery() as nursery:
        yield Keeper(plan, RoomForAll(free), nursery)
        nursery.cancel_scope.cancel()


async def refusal(keeper: Keeper) -> LlamasupError:
    with pytest.raises(ModelUnavailable) as failure:
        await keeper.ready()
    return failure.value


async def kill(keeper: Keeper, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill its child, and wait until that is known."""
    child = keeper.child
    assert child is not None
    assert child.pid is not None
    os.kill(child.pid, number)
    await eventually(lambda: keeper.child is not child)


def contexts(journal: Journal) -> list[str]:
    """The contexts of the children that were started, in order."""
    starts = [entry["argv"] for entry in journal.entries("started")]
    return [argv[argv.index("--ctx-size") + 1] for argv in starts]


def as_program(path: Path) -> None:
    """Put the fake engine at `path`. Written beside, then moved there."""
    draft = path.with_suffix(".new")
    draft.write_text(f'#!/bin/sh\nexec {FAKE} "$@"\n')
    draft.chmod(0o755)
    draft.rename(path)


# --- one load for all ---


async def test_all_who_come_share_one_load(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    children: list[Child] = []
    async with keeping(planning(faking("--fake-load-seconds", "0.2"))) as keeper:

        async def come() -> None:
            children.append(await keeper.ready())

        async with trio.open_nursery() as requests:
            for _ in range(10):
                requests.start_soon(come)
        assert keeper.state is KeeperState.READY
        assert keeper.loads == 1
    assert len(children) == 10
    assert len(set(children)) == 1
    assert len(journal.entries("started")) == 1


async def test_the_load_goes_on_when_everybody_who_waited_has_left(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning(faking("--fake-load-seconds", "0.3"))) as keeper:
        async with trio.open_nursery() as requests:
            requests.start_soon(keeper.ready)
            await journal.first("started")
            requests.cancel_scope.cancel()
        await keeper.ready()
    assert len(journal.entries("started")) == 1


async def test_all_who_wait_are_told_why(faking: Fake, planning: Planning) -> None:
    told: list[str] = []
    async with keeping(planning(faking(*HOPELESS))) as keeper:

        async def come() -> None:
            told.append(str(await refusal(keeper)))

        async with trio.open_nursery() as requests:
            for _ in range(5):
                requests.start_soon(come)
        assert keeper.state is KeeperState.FAILED
        assert str(keeper.last_failure) == told[0]
    assert told == ["model \"fake\" cannot be started: unknown model architecture: 'x'"] * 5


# --- starts that fail ---


async def test_a_start_that_fails_by_accident_is_tried_again_for_those_who_wait(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    accident = ("--fake-fail-load", "a hiccup", "--fake-scripted-lives", "1")
    async with keeping(planning({**faking(*accident), **LADDER})) as keeper:
        assert (await keeper.ready()).state is ChildState.READY
        assert keeper.last_failure is None
    assert contexts(journal) == ["32768", "32768"]


async def test_two_accidents_in_a_row_are_told_and_the_next_one_tries_again(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    accidents = ("--fake-fail-load", "a hiccup", "--fake-scripted-lives", "2")
    async with keeping(planning(faking(*accidents))) as keeper:
        assert "a hiccup" in str(await refusal(keeper))
        assert len(journal.entries("started")) == 2
        assert (await keeper.ready()).state is ChildState.READY


async def test_starts_that_fail_now_and_then_are_forgotten_with_each_that_succeeds(
    faking: Fake, planning: Planning, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamasup.children.restarts.LONGEST_PAUSE", 0.01)
    hiccup = ("--fake-fail-load", "a hiccup", "--fake-scripted-lives", "1")
    async with keeping(planning(faking(*hiccup))) as keeper:
        for _ in range(MOST_FAILED_STARTS + 1):
            journal.path.unlink(missing_ok=True)  # so that its next start is the first one
            await keeper.ready()
            assert len(journal.entries("started")) == 2
            keeper.unload()
            await keeper.until_idle()
        assert not keeper.record.given_up


async def test_a_model_that_was_given_up_is_not_tried_again_in_vain(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning(faking(*HOPELESS))) as keeper:
        first = await refusal(keeper)
        again = await refusal(keeper)
    assert str(again) == str(first)
    assert again.retry_after is None
    assert len(journal.entries("started")) == 1


async def test_a_model_that_was_given_up_is_tried_again_when_its_file_changes(
    faking: Fake, planning: Planning, tmp_path: Path
) -> None:
    config = faking(*HOPELESS, "--fake-scripted-lives", "1")
    async with keeping(planning(config)) as keeper:
        await refusal(keeper)
        (tmp_path / "fake.gguf").write_text("a better one")
        assert (await keeper.ready()).state is ChildState.READY
        assert keeper.last_failure is None


async def test_a_file_that_changes_while_it_is_loaded_is_tried_again(
    faking: Fake, planning: Planning, journal: Journal, tmp_path: Path
) -> None:
    half_copied = faking(*HOPELESS, "--fake-scripted-lives", "1", "--fake-load-seconds", "0.3")
    async with keeping(planning(half_copied)) as keeper:
        async with trio.open_nursery() as requests:
            requests.start_soon(refusal, keeper)
            await journal.first("started")
            (tmp_path / "fake.gguf").write_text("the whole of it")
        assert (await keeper.ready()).state is ChildState.READY


async def test_a_file_that_never_stands_still_is_not_tried_all_the_time(
    faking: Fake, planning: Planning, journal: Journal, tmp_path: Path
) -> None:
    async with keeping(planning(faking(*HOPELESS))) as keeper:
        with trio.move_on_after(1.5):
            while True:
                await refusal(keeper)
                with (tmp_path / "fake.gguf").open("a") as file:
                    file.write("a little more")
    assert len(journal.entries("started")) <= 2


async def test_a_model_that_was_given_up_is_tried_again_when_the_operator_says_so(
    faking: Fake, planning: Planning
) -> None:
    config = faking(*HOPELESS, "--fake-scripted-lives", "1")
    async with keeping(planning(config)) as keeper:
        await refusal(keeper)
        keeper.restart()
        assert (await keeper.ready()).state is ChildState.READY


async def test_an_engine_that_is_missing_is_given_up_until_it_is_there(
    faking: Fake, planning: Planning, tmp_path: Path
) -> None:
    engine = tmp_path / "llama-server"
    async with keeping(planning({**faking(), "engine.command": str(engine)})) as keeper:
        assert "llama-server does not exist" in str(await refusal(keeper))
        assert keeper.state is KeeperState.FAILED
        as_program(engine)
        assert (await keeper.ready()).state is ChildState.READY


async def test_what_has_nothing_to_do_with_the_model_is_no_reason_to_give_it_up(
    faking: Fake, planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planning(faking())
    make_child = plan.child
    failures = iter([ModelUnavailable("no port is free")])

    async def child(rung: Rung) -> Child:
        for failure in failures:
            raise failure
        return await make_child(rung)

    monkeypatch.setattr(plan, "child", child)
    async with keeping(plan) as keeper:
        assert str(await refusal(keeper)) == 'model "fake" cannot be started: no port is free'
        assert (await keeper.ready()).state is ChildState.READY


async def test_an_engine_that_is_lost_while_it_loads_a_model_serves_it_all_the_same(
    faking: Fake, planning: Planning, journal: Journal, tmp_path: Path
) -> None:
    engine = tmp_path / "llama-server"
    as_program(engine)
    config = {**faking("--fake-load-seconds", "0.3"), "engine.command": str(engine)}
    async with keeping(planning(config)) as keeper:
        async with trio.open_nursery() as requests:
            requests.start_soon(keeper.ready)
            await journal.first("started")
            engine.unlink()
        assert await (await keeper.ready()).survived()


async def test_a_lost_run_folder_fails_the_load_and_leaves_no_child(
    faking: Fake, planning: Planning, journal: Journal, run_folder: RunFolder
) -> None:
    async with keeping(planning(faking("--host", "127.0.0.1", "--port", "0"))) as keeper:
        shutil.rmtree(run_folder.path)
        assert "cannot be used: No such file" in str(await refusal(keeper))
    assert not any(is_alive(entry["pid"]) for entry in journal.entries("started"))


# --- down the ladder ---


async def test_a_load_goes_down_the_ladder_until_a_rung_holds(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning({**faking(*NO_ROOM, "8192"), **LADDER})) as keeper:
        await keeper.ready()
        assert keeper.rung == Rung(8192)
        assert keeper.loads == 3
    assert contexts(journal) == ["32768", "16384", "8192"]


async def test_the_rung_that_held_is_where_the_next_llamasup_begins(
    faking: Fake, planning: Planning, journal: Journal, tmp_path: Path
) -> None:
    config = {**faking(*NO_ROOM, "8192"), **LADDER}
    for _ in range(2):
        async with keeping(planning(config)) as keeper:
            await keeper.ready()
            await eventually((tmp_path / "state.json").exists)
    assert contexts(journal) == ["32768", "16384", "8192", "8192"]


async def test_one_rung_higher_is_tried_when_more_memory_is_free_than_then(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    plan = planning({**faking(*NO_ROOM, "8192"), **LADDER, "ladder.climb_interval": 0})
    free = 0

    async def it_is_learned() -> bool:
        learned = await plan.learned()
        return learned is not None and learned.free == free

    for free in (800, 800, 900):
        async with keeping(plan, {"host": free}) as keeper:
            await keeper.ready()
            await eventually(it_is_learned)
    assert contexts(journal)[3:] == ["8192", "16384", "8192"]


async def test_a_model_that_fits_on_no_rung_is_refused_with_all_that_was_tried(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    config = {**faking(*NO_ROOM, "0"), **LADDER, "recovery.patience": 5}
    async with keeping(planning(config)) as keeper:
        failure = await refusal(keeper)
        assert isinstance(failure, OutOfMemory)
        words = "failed to allocate buffer for kv cache"
        assert str(failure) == (
            f'model "fake" does not fit into memory; tried context 32768: {words};'
            f" context 16384: {words}; context 8192: {words}"
        )
        # Others may leave some memory. But no storm of attempts meanwhile.
        again = await refusal(keeper)
        assert isinstance(again, OutOfMemory)
        assert again.retry_after is not None
        assert 30 < again.retry_after <= 60
    assert len(journal.entries("started")) == 3


async def test_many_who_run_out_of_memory_at_once_take_one_step(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning({**faking(), **LADDER})) as keeper:
        first = await keeper.ready()
        for _ in range(3):
            first.enter()
        assert [keeper.out_of_memory(first, "bad_alloc") for _ in range(3)] == [True] * 3
        assert first.state is ChildState.RETIRING
        for _ in range(3):
            assert keeper.child is first
            first.leave()
        second = await keeper.ready()
        assert keeper.rung == Rung(16384)
        # News of the first one does not touch the second.
        assert keeper.out_of_memory(first, "bad_alloc")
        assert second.state is ChildState.READY
    assert contexts(journal) == ["32768", "16384"]


@pytest.mark.parametrize(("sufferers", "remembered"), [(1, Rung(32768)), (2, Rung(16384))])
async def test_a_rung_is_remembered_when_a_second_request_suffers_it(
    faking: Fake, planning: Planning, sufferers: int, remembered: Rung
) -> None:
    async with keeping(planning({**faking(), **LADDER})) as keeper:
        first = await keeper.ready()
        first.enter()
        for _ in range(sufferers):
            assert keeper.out_of_memory(first, "bad_alloc")
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


NO_THREADS = "what():  Resource temporarily unavailable"


async def test_an_engine_without_threads_is_tried_again_and_never_given_up(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    config = {**faking("--fake-fail-load", NO_THREADS), **LADDER, "recovery.patience": 0.1}
    async with keeping(planning(config)) as keeper:
        for _ in range(8):
            failure = await refusal(keeper)
            assert "it could have no more threads" in str(failure)
            keeper.record = evolve(keeper.record, not_before=0.0)  # a while later
        assert not keeper.record.given_up
        assert set(contexts(journal)) == {"32768"}


async def test_a_load_that_ran_out_of_memory_and_then_of_threads_goes_on_down(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    script = ("--fake-fail-load", f"failed to allocate buffer for kv cache|{NO_THREADS}")
    config = {**faking(*script, "--fake-fail-above-ctx", "8192"), **LADDER}
    async with keeping(planning(config)) as keeper:
        await keeper.ready()
    assert contexts(journal) == ["32768", "16384", "8192"]


async def test_on_the_last_rung_a_child_that_runs_out_of_memory_stays(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning({**faking(), "ladder.contexts": [4096]})) as keeper:
        child = await keeper.ready()
        assert not keeper.out_of_memory(child, "bad_alloc")
        assert child.state is ChildState.READY
        assert str(keeper.exhausted("bad_alloc")) == (
            'model "fake" ran out of memory; tried context 4096: bad_alloc'
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


# --- first the idle go, then the context ---


async def test_the_idle_go_one_after_the_other_before_a_load_takes_less_context(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    plan = planning({**faking(*NO_ROOM, "16384"), **LADDER})
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.idle = ["a", "b", "c", "d"]
        keeper = Keeper(plan, house, nursery)
        await keeper.ready()
        assert house.gone == ["a", "b", "c", "d"]
        assert keeper.rung == Rung(16384)
        nursery.cancel_scope.cancel()
    assert contexts(journal) == ["32768"] * 4 + ["16384"]


async def test_a_load_for_which_somebody_idle_has_gone_keeps_its_context_and_nothing_is_learned(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    config = {**faking(*NO_ROOM, "0", "--fake-scripted-lives", "1"), **LADDER}
    plan = planning(config)
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.idle = ["a"]
        keeper = Keeper(plan, house, nursery)
        await keeper.ready()
        assert await plan.learned() is None
        nursery.cancel_scope.cancel()
    assert contexts(journal) == ["32768", "32768"]


async def test_a_child_that_runs_out_of_memory_as_it_serves_keeps_its_context_if_somebody_can_go(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.idle = ["a"]
        keeper = Keeper(planning({**faking(), "ladder.contexts": [4096]}), house, nursery)
        for expected in (True, False):
            child = await keeper.ready()
            assert keeper.out_of_memory(child, "bad_alloc") is expected
        assert house.gone == ["a"]
        nursery.cancel_scope.cancel()
    assert contexts(journal) == ["4096", "4096"]


async def test_who_comes_back_after_it_has_gone_does_not_keep_a_model_from_stepping_down(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.idle = ["a"]
        keeper = Keeper(planning({**faking(), **LADDER}), house, nursery)
        for _ in range(3):
            keeper.out_of_memory(await keeper.ready(), "bad_alloc")
            house.gone.clear()
        await keeper.ready()
        nursery.cancel_scope.cancel()
    assert contexts(journal) == ["32768", "32768", "16384", "8192"]


async def test_what_failed_while_others_held_memory_is_tried_again_as_soon_as_room_appears(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    config = {**faking(*NO_ROOM, "0", "--fake-scripted-lives", "3"), **LADDER}
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.is_crowded = True
        keeper = Keeper(planning(config), house, nursery)
        assert isinstance(await refusal(keeper), OutOfMemory)
        assert isinstance(await refusal(keeper), OutOfMemory)
        assert len(journal.entries("started")) == 3
        keeper.room_appeared()
        assert (await keeper.ready()).state is ChildState.READY
        nursery.cancel_scope.cancel()


async def test_what_failed_while_others_held_memory_is_tried_again_as_soon_as_one_of_them_idles(
    faking: Fake, planning: Planning
) -> None:
    config = {**faking(*NO_ROOM, "0", "--fake-scripted-lives", "3"), **LADDER}
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.is_crowded = True
        keeper = Keeper(planning(config), house, nursery)
        await refusal(keeper)
        house.idle = ["a"]
        assert (await keeper.ready()).state is ChildState.READY
        nursery.cancel_scope.cancel()


async def test_what_failed_alone_does_not_fit_better_because_others_came_and_went(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning({**faking(*NO_ROOM, "0"), **LADDER})) as keeper:
        await refusal(keeper)
        keeper.room_appeared()
        await refusal(keeper)
    assert len(journal.entries("started")) == 3


async def test_who_waits_for_a_failed_load_to_be_tried_again_waits_no_longer_than_for_room(
    faking: Fake, planning: Planning
) -> None:
    config = {**faking(*NO_ROOM, "0", "--fake-scripted-lives", "3"), **LADDER}
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.is_crowded = True
        keeper = Keeper(planning({**config, "recovery.patience": 1000}), house, nursery)
        await refusal(keeper)
        with trio.fail_after(30):
            async with trio.open_nursery() as requests:
                requests.start_soon(keeper.ready)
                await trio.testing.wait_all_tasks_blocked(0.05)
                keeper.room_appeared()
        nursery.cancel_scope.cancel()


async def test_who_waits_for_a_place_says_so(
    faking: Fake, planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = trio.Event()

    async def place(*_: object) -> House:
        await room.wait()
        return House()

    monkeypatch.setattr(RoomForAll, "place", place)
    async with keeping(planning(faking())) as keeper, trio.open_nursery() as requests:
        requests.start_soon(keeper.ready)
        await eventually(lambda: keeper.state is KeeperState.WAITING)
        assert keeper.state.value == "waiting for room"
        assert keeper.outlook == "waiting for room for fake"
        room.set()
    assert keeper.loads == 1


async def test_a_model_that_gets_no_place_has_failed_to_load(
    faking: Fake, planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def place(*_: object) -> House:
        raise NotAdmitted("there is no room for it")

    monkeypatch.setattr(RoomForAll, "place", place)
    async with keeping(planning(faking())) as keeper:
        with pytest.raises(NotAdmitted):
            await keeper.ready()
        await keeper.until_idle()
        assert keeper.state is KeeperState.FAILED
        assert str(keeper.last_failure) == "there is no room for it"


# --- deaths ---


async def test_a_child_that_died_is_followed_by_its_like_for_the_next_request(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning({**faking(), **LADDER})) as keeper:
        first = await keeper.ready()
        await kill(keeper)
        await eventually(lambda: keeper.state is KeeperState.UNLOADED)
        assert keeper.child is None
        assert first.state is ChildState.GONE
        second = await keeper.ready()
        assert second is not first
        assert second.state is ChildState.READY
    assert contexts(journal) == ["32768", "32768"]


async def test_a_model_that_is_not_preloaded_stays_away_until_it_is_asked_for(
    faking: Fake, planning: Planning
) -> None:
    async with trio.open_nursery() as nursery:
        keeper = Keeper(planning(faking()), RoomForAll(), nursery)
        await keeper.ready()
        await kill(keeper)
        await eventually(lambda: not nursery.child_tasks)
        assert keeper.loads == 1


async def test_a_preloaded_model_comes_back_by_itself(faking: Fake, planning: Planning) -> None:
    async with keeping(planning({**faking(), "pool.preload": ["fake"]})) as keeper:
        first = await keeper.ready()
        await kill(keeper)
        await eventually(lambda: keeper.state is KeeperState.READY)
        assert keeper.child is not first


async def test_a_preloaded_model_that_was_given_up_comes_back_when_the_operator_says_so(
    faking: Fake, planning: Planning
) -> None:
    script = faking(*HOPELESS, "--fake-scripted-lives", "1")
    async with trio.open_nursery() as nursery:
        keeper = Keeper(planning({**script, "pool.preload": ["fake"]}), RoomForAll(), nursery)
        await refusal(keeper)
        await eventually(lambda: not nursery.child_tasks)
        keeper.restart()
        await eventually(lambda: keeper.state is KeeperState.READY)
        nursery.cancel_scope.cancel()


async def test_who_comes_too_early_after_many_deaths_waits_if_that_is_not_too_long(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning(faking())) as keeper:
        for _ in range(2):
            await keeper.ready()
            await kill(keeper)
        wait = keeper.record.wait(trio.current_time())
        assert wait > 0
        asked = trio.current_time()
        await keeper.ready()
        assert trio.current_time() - asked >= wait


async def test_who_would_have_to_wait_too_long_is_told_when_to_come_again(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning({**faking(), "recovery.patience": 0.1})) as keeper:
        for _ in range(2):
            await keeper.ready()
            await kill(keeper)
        failure = await refusal(keeper)
        assert str(failure).startswith('model "fake" died: killed by SIGKILL')
        assert failure.retry_after is not None
        assert 0.1 < failure.retry_after <= 1.25
    assert len(journal.entries("started")) == 2


async def test_a_child_that_ends_by_itself_has_died_though_it_found_nothing_wrong(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning({**faking(), "recovery.patience": 0.1})) as keeper:
        for deaths in (1, 2):
            await keeper.ready()
            await kill(keeper, signal.SIGTERM)
            assert keeper.record.deaths == deaths
        assert keeper.record.wait(trio.current_time()) > 0
        assert str(await refusal(keeper)) == 'model "fake" died: finished by itself'


# --- ends that are wished ---


async def test_a_restart_lets_those_who_are_served_finish(faking: Fake, planning: Planning) -> None:
    async with keeping(planning(faking())) as keeper:
        first = await keeper.ready()
        first.enter()
        keeper.restart()
        assert await first.survived()
        first.leave()
        second = await keeper.ready()
        assert first.state is ChildState.GONE
        assert second is not first
        assert keeper.record.deaths == 0


async def test_the_next_child_is_not_started_before_the_last_one_is_gone(
    faking: Fake, planning: Planning
) -> None:
    stubborn = faking("--fake-ignore-term", "--fake-ignore-stdin")
    async with keeping(planning({**stubborn, "engine.stop_grace": 0.3})) as keeper:
        first = await keeper.ready()
        first.stop()
        stopped = trio.current_time()
        second = await keeper.ready()
        assert second is not first
        assert trio.current_time() - stopped >= 0.3
        assert first.pid is not None
        assert not is_alive(first.pid)


async def test_the_end_of_its_nursery_ends_the_child(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning(faking())) as keeper:
        await keeper.ready()
    assert keeper.state is KeeperState.UNLOADED
    assert not is_alive(journal.entries("started")[0]["pid"])


async def test_the_end_of_its_nursery_ends_a_load(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with trio.open_nursery() as nursery:
        keeper = Keeper(planning(faking("--fake-never-ready")), RoomForAll(), nursery)
        nursery.start_soon(keeper.ready)
        pid = (await journal.first("started"))["pid"]
        nursery.cancel_scope.cancel()
    assert not is_alive(pid)


# --- models that go ---


async def test_a_missing_file_is_told_as_such_each_time(faking: Fake, planning: Planning) -> None:
    config = faking("--fake-fail-load", "failed to open GGUF file 'x' (No such file or directory)")
    async with keeping(planning(config)) as keeper:
        for _ in range(2):
            assert isinstance(await refusal(keeper), ModelFileMissing)
        assert keeper.loads == 1


async def test_a_keeper_is_idle_before_its_child_and_after_it(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning(faking())) as keeper:
        assert keeper.idle
        child = await keeper.ready()
        assert not keeper.idle
        child.stop()
        await eventually(lambda: keeper.idle)
        assert child.state is ChildState.GONE


async def test_a_keeper_that_was_dismissed_loads_nothing_more(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning(faking())) as keeper:
        keeper.dismiss()
        with pytest.raises(ModelNotFound):
            await keeper.ready()
    assert journal.entries() == []


# --- another plan ---


async def test_a_plan_that_launches_alike_is_taken_over_silently(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning(faking())) as keeper:
        child = await keeper.ready()
        new = planning({**faking(aliases=["x"], idle_unload=7), "pool.turn": 1})
        keeper.adopt(new)
        assert keeper.plan is new
        assert await keeper.ready() is child


async def test_a_child_of_another_launch_answers_to_the_end_and_is_followed_by_one_of_the_new(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    hurried = {**faking(), "recovery.retirement": 0}
    async with keeping(planning(hurried)) as keeper:
        child = await keeper.ready()
        child.enter()
        keeper.adopt(planning({**hurried, **faking(context_size=4096)}))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert child.state is ChildState.RETIRING
        child.leave()
        assert await keeper.ready() is not child
    assert contexts(journal) == ["32768", "4096"]


async def test_a_load_that_another_plan_overtakes_serves_nobody(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    slow = faking("--fake-load-seconds", "0.3")
    async with keeping(planning(slow)) as keeper, trio.open_nursery() as requests:
        requests.start_soon(keeper.ready)
        await journal.first("started")
        keeper.adopt(planning(faking("--fake-load-seconds", "0.3", context_size=4096)))
        child = await keeper.ready()
        assert "4096" in child.launch.argv
    assert contexts(journal) == ["32768", "4096"]


async def test_what_was_given_up_is_tried_again_with_another_plan(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning(faking(*HOPELESS))) as keeper:
        await refusal(keeper)
        assert keeper.record.given_up
        keeper.adopt(planning(faking()))
        assert (await keeper.ready()).state is ChildState.READY


async def test_those_who_wait_for_a_load_that_fails_get_a_child_of_the_plan_that_came_meanwhile(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    failing = faking("--fake-load-seconds", "0.3", *HOPELESS)
    children: list[Child] = []
    async with keeping(planning(failing)) as keeper:

        async def come() -> None:
            children.append(await keeper.ready())

        async with trio.open_nursery() as requests:
            requests.start_soon(come)
            await journal.first("started")
            keeper.adopt(planning(faking()))
    assert len(children) == 1


async def test_a_preloaded_model_with_another_plan_comes_back_by_itself(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    preload = {"pool.preload": ["fake"]}
    async with keeping(planning({**faking(), **preload})) as keeper:
        await keeper.ready()
        keeper.adopt(planning({**faking(context_size=4096), **preload}))
        await eventually(lambda: len(journal.entries("ready")) == 2)
    assert contexts(journal) == ["32768", "4096"]


async def test_a_dismissed_keeper_is_idle_after_its_last_answer(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning(faking())) as keeper:
        child = await keeper.ready()
        child.enter()
        keeper.dismiss()
        assert not keeper.idle
        child.leave()
        with trio.fail_after(10):
            await keeper.until_idle()
        assert keeper.idle

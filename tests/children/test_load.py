"""A load goes down the ladder to a child that is ready, and tells all who wait when it fails."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import evolve

from llamasup import events
from llamasup.children.child import Child
from llamasup.children.keeper import Keeper
from llamasup.children.plan import Plan
from llamasup.errors import (
    ModelFileMissing,
    ModelUnavailable,
    NotAdmitted,
    OutOfMemory,
)
from llamasup.memory.ladder import Rung
from llamasup.processes.run_folder import RunFolder
from llamasup.states import ChildState, KeeperState
from tests.children.keeping import (
    HOPELESS,
    LADDER,
    NO_ROOM,
    Fake,
    Planning,
    as_program,
    contexts,
    keeping,
    kill,
    refusal,
)
from tests.children.landlord import House, RoomForAll
from tests.harness import Journal, eventually, is_alive


async def test_a_start_that_fails_by_accident_is_tried_again_for_the_waiting_requests(
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
        words = 'model "fake" cannot be started: no port is free; it may be tried again in 1 s'
        assert str(await refusal(keeper)) == words
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


async def test_a_missing_file_is_told_as_such_each_time(faking: Fake, planning: Planning) -> None:
    config = faking("--fake-fail-load", "failed to open GGUF file 'x' (No such file or directory)")
    async with keeping(planning(config)) as keeper:
        for _ in range(2):
            assert isinstance(await refusal(keeper), ModelFileMissing)
        assert keeper.loads == 1


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
            f" context 16384: {words}; context 8192: {words}; it may be tried again in 60 s"
        )
        # Others may leave some memory. But no storm of attempts meanwhile.
        again = await refusal(keeper)
        assert isinstance(again, OutOfMemory)
        assert again.retry_after is not None
        assert 30 < again.retry_after <= 60
    assert len(journal.entries("started")) == 3


NO_THREADS = "what():  Resource temporarily unavailable"


async def test_an_engine_without_threads_is_tried_again_and_never_given_up(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    config = {**faking("--fake-fail-load", NO_THREADS), **LADDER, "recovery.patience": 0.1}
    async with keeping(planning(config)) as keeper:
        for _ in range(8):
            failure = await refusal(keeper)
            assert "it could have no more threads" in str(failure)
            keeper.history.record = evolve(keeper.history.record, not_before=0.0)  # a while later
        assert not keeper.history.record.given_up
        assert set(contexts(journal)) == {"32768"}


async def test_a_load_that_ran_out_of_memory_and_then_of_threads_goes_on_down(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    script = ("--fake-fail-load", f"failed to allocate buffer for kv cache|{NO_THREADS}")
    config = {**faking(*script, "--fake-fail-above-ctx", "8192"), **LADDER}
    async with keeping(planning(config)) as keeper:
        await keeper.ready()
    assert contexts(journal) == ["32768", "16384", "8192"]


# --- a place ---


async def test_a_load_that_waits_for_a_place_says_so(
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
        assert keeper.state.shown == "waiting for room"
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


# --- its end ---


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


async def test_the_end_of_its_nursery_ends_a_load(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with trio.open_nursery() as nursery:
        keeper = Keeper(
            planning(faking("--fake-never-ready")), RoomForAll(), events.Journal(), nursery
        )
        nursery.start_soon(keeper.ready)
        pid = (await journal.first("started"))["pid"]
        nursery.cancel_scope.cancel()
    assert not is_alive(pid)


# --- another plan ---


async def test_a_load_that_is_overtaken_by_another_plan_serves_no_new_request(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    slow = faking("--fake-load-seconds", "0.3")
    async with keeping(planning(slow)) as keeper, trio.open_nursery() as requests:
        requests.start_soon(keeper.ready)
        await journal.first("started")
        keeper.follow(planning(faking("--fake-load-seconds", "0.3", context_size=4096)))
        child = await keeper.ready()
        assert "4096" in child.launch.argv
    assert contexts(journal) == ["32768", "4096"]


async def test_requests_that_wait_for_a_failing_load_get_a_child_of_the_plan_that_came_meanwhile(
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
            keeper.follow(planning(faking()))
    assert len(children) == 1


# --- its state ---


async def test_a_load_that_falls_when_its_child_is_ready_has_failed(
    faking: Fake, planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held(*_: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("llamasup.children.position.Position.held", held)
    async with keeping(planning(faking())) as keeper:
        await keeper.ready()
        await keeper.until_idle()
        assert keeper.state is KeeperState.FAILED
        assert "a mistake of ours, ZeroDivisionError" in str(keeper.last_failure)


async def test_a_load_out_of_date_is_shown_as_what_its_child_is(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    slow = "--fake-load-seconds", "0.3"
    async with keeping(planning(faking(*slow))) as keeper, trio.open_nursery() as requests:
        requests.start_soon(keeper.ready)
        await journal.first("started")
        assert keeper.state is KeeperState.LOADING
        keeper.follow(planning(faking(*slow, context_size=4096)))
        assert (keeper.state, keeper.state.shown) == (KeeperState.OVERTAKEN, "loading")
        child = await keeper.ready()
        child.enter()
        await trio.testing.wait_all_tasks_blocked()
        keeper.dismiss()
        assert (keeper.state, keeper.state.shown) == (KeeperState.LEAVING, "ready")
        assert keeper.child is child
        child.leave()
        await keeper.until_idle()
        assert keeper.state is KeeperState.UNLOADED


# --- what is told of it ---


@asynccontextmanager
async def overheard(plan: Plan) -> AsyncIterator[tuple[Keeper, list[events.OfModel]]]:
    """A keeper, and all that is told of its model, in order."""
    told, heard = events.Journal(), list[events.OfModel]()
    with told.heard_by(heard.append, *events.OfModel.__subclasses__()):
        async with keeping(plan, journal=told) as keeper:
            yield keeper, heard


async def test_the_course_of_a_load_is_told(faking: Fake, planning: Planning) -> None:
    async with overheard(planning(faking())) as (keeper, heard):
        child = str(await keeper.ready())
        keeper.unload()
        await eventually(lambda: keeper.idle)
    states = [event.state for event in heard if isinstance(event, events.StateChanged)]
    assert states == [
        *(KeeperState.LOADING, KeeperState.WAITING, KeeperState.LOADING),
        *(KeeperState.READY, KeeperState.UNLOADED),
    ]
    steps = [e for e in heard if not isinstance(e, events.LoadProgressed | events.StateChanged)]
    assert list(map(type, steps)) == [events.LoadBegan, events.Ready, events.ChildGone]
    assert all(event.model == "fake" for event in heard)
    assert steps[-1] == events.ChildGone("fake", child)


async def test_steps_down_the_ladder_are_told_with_their_cause(
    faking: Fake, planning: Planning
) -> None:
    async with overheard(planning({**faking(*NO_ROOM, "8192"), **LADDER})) as (keeper, heard):
        await keeper.ready()
    down = [event for event in heard if isinstance(event, events.SteppedDown)]
    assert [event.rung for event in down] == [str(Rung(16384)), str(Rung(8192))]
    assert all("kv cache" in event.why for event in down)


async def test_a_death_and_a_load_that_fails_are_told(faking: Fake, planning: Planning) -> None:
    async with overheard(planning(faking())) as (keeper, heard):
        await keeper.ready()
        await kill(keeper)
        await eventually(lambda: keeper.idle)
    (death,) = (event for event in heard if isinstance(event, events.ChildDied))
    assert "SIGKILL" in death.why
    async with overheard(planning(faking(*HOPELESS))) as (keeper, heard):
        await refusal(keeper)
    (failure,) = (event for event in heard if isinstance(event, events.LoadFailed))
    assert failure.given_up
    assert "unknown model architecture" in failure.why

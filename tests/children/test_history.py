"""What went wrong delays the next start, or forbids it, until something has changed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from llamasup import events
from llamasup.children.keeper import Keeper
from llamasup.children.restarts import MOST_FAILED_STARTS
from llamasup.errors import (
    OutOfMemory,
)
from llamasup.states import ChildState, KeeperState
from tests.children.keeping import (
    HOPELESS,
    LADDER,
    NO_ROOM,
    Fake,
    Planning,
    as_program,
    keeping,
    kill,
    refusal,
)
from tests.children.landlord import RoomForAll
from tests.harness import Journal


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
        assert not keeper.history.record.given_up


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


# --- want of room ---


async def test_what_failed_while_others_held_memory_is_tried_again_as_soon_as_room_appears(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    config = {**faking(*NO_ROOM, "0", "--fake-scripted-lives", "3"), **LADDER}
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.is_crowded = True
        keeper = Keeper(planning(config), house, events.Journal(), nursery)
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
        keeper = Keeper(planning(config), house, events.Journal(), nursery)
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


async def test_a_request_that_waits_for_another_try_goes_on_as_soon_as_there_is_room(
    faking: Fake, planning: Planning
) -> None:
    config = {**faking(*NO_ROOM, "0", "--fake-scripted-lives", "3"), **LADDER}
    async with trio.open_nursery() as nursery:
        house = RoomForAll()
        house.is_crowded = True
        keeper = Keeper(
            planning({**config, "recovery.patience": 1000}), house, events.Journal(), nursery
        )
        await refusal(keeper)
        with trio.fail_after(30):
            async with trio.open_nursery() as requests:
                requests.start_soon(keeper.ready)
                await trio.testing.wait_all_tasks_blocked(0.05)
                keeper.room_appeared()
        nursery.cancel_scope.cancel()


# --- deaths ---


async def test_a_request_soon_after_many_deaths_waits_if_that_is_not_too_long(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning(faking())) as keeper:
        for _ in range(2):
            await keeper.ready()
            await kill(keeper)
        wait = keeper.history.record.wait(trio.current_time())
        assert wait > 0
        asked = trio.current_time()
        await keeper.ready()
        assert trio.current_time() - asked >= wait


async def test_a_request_that_would_wait_too_long_is_told_when_to_come_again(
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
            assert keeper.history.record.deaths == deaths
        assert keeper.history.record.wait(trio.current_time()) > 0
        words = 'model "fake" died: finished by itself; it may be tried again in 1 s'
        assert str(await refusal(keeper)) == words

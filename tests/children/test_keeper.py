"""A keeper starts one child for all who wait, tells all of them the same, and starts anew."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import trio

from llamasup.children.child import Child
from llamasup.children.keeper import Keeper, MakeChild
from llamasup.children.launcher import Launcher
from llamasup.children.orphans import RunFolder, own_run_folder
from llamasup.config.load import load
from llamasup.errors import ModelUnavailable
from llamasup.states import ChildState, KeeperState
from tests.harness import Journal, eventually, is_alive

Fake = Callable[..., Mapping[str, object]]
Planning = Callable[[Mapping[str, object]], MakeChild]


@pytest.fixture
def run_folder() -> Iterator[RunFolder]:
    # pytest's own folders have names too long for a socket.
    with (
        tempfile.TemporaryDirectory(prefix="llamasup-test-") as base,
        own_run_folder(Path(base)) as (folder, _),
    ):
        yield folder


@pytest.fixture
def planning(run_folder: RunFolder) -> Planning:
    """What plans the children of a configuration's only model."""

    def planning(config: Mapping[str, object]) -> MakeChild:
        settings = load(None, {}, config)
        launcher = Launcher(settings, os.environ, run_folder.path, run_folder)
        [model] = settings.models
        return partial(launcher.child, model)

    return planning


async def test_all_who_come_share_one_load(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    children: list[Child] = []
    async with trio.open_nursery() as nursery:
        keeper = Keeper("fake", planning(faking("--fake-load-seconds", "0.2")), nursery)

        async def come() -> None:
            children.append(await keeper.ready())

        async with trio.open_nursery() as requests:
            for _ in range(10):
                requests.start_soon(come)
        assert keeper.state is KeeperState.READY
        assert keeper.loads == 1
        nursery.cancel_scope.cancel()
    assert len(children) == 10
    assert len(set(children)) == 1
    assert len(journal.entries("started")) == 1


async def test_the_load_goes_on_when_everybody_who_waited_has_left(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with trio.open_nursery() as nursery:
        keeper = Keeper("fake", planning(faking("--fake-load-seconds", "0.3")), nursery)
        async with trio.open_nursery() as requests:
            requests.start_soon(keeper.ready)
            await journal.first("started")
            requests.cancel_scope.cancel()
        await keeper.ready()
        nursery.cancel_scope.cancel()
    assert len(journal.entries("started")) == 1


async def test_all_who_wait_are_told_why_and_the_next_one_tries_again(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    told: list[str] = []
    failing = ("--fake-fail-load", "unknown model architecture: 'x'", "--fake-scripted-lives", "1")
    async with trio.open_nursery() as nursery:
        keeper = Keeper("fake", planning(faking(*failing)), nursery)

        async def come() -> None:
            with pytest.raises(ModelUnavailable) as failure:
                await keeper.ready()
            told.append(str(failure.value))

        async with trio.open_nursery() as requests:
            for _ in range(5):
                requests.start_soon(come)
        assert told == ["model \"fake\" cannot be started: unknown model architecture: 'x'"] * 5
        assert keeper.state is KeeperState.FAILED
        assert str(keeper.last_failure) == told[0]

        assert (await keeper.ready()).state is ChildState.READY
        assert keeper.last_failure is None
        nursery.cancel_scope.cancel()
    assert len(journal.entries("started")) == 2


async def test_a_child_that_exits_is_replaced_for_the_next_request(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    script = ("--fake-exit-after-ready", "0.05", "--fake-scripted-lives", "1")
    async with trio.open_nursery() as nursery:
        keeper = Keeper("fake", planning(faking(*script)), nursery)
        first = await keeper.ready()
        await eventually(lambda: keeper.state is KeeperState.UNLOADED)
        assert keeper.child is None
        assert first.state is ChildState.GONE
        second = await keeper.ready()
        assert second is not first
        assert second.state is ChildState.READY
        nursery.cancel_scope.cancel()
    assert len(journal.entries("started")) == 2


async def test_the_next_child_is_not_started_before_the_last_one_is_gone(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    stubborn = faking("--fake-ignore-term", "--fake-ignore-stdin")
    async with trio.open_nursery() as nursery:
        keeper = Keeper("fake", planning({**stubborn, "engine.stop_grace": 0.3}), nursery)
        first = await keeper.ready()
        first.stop()
        stopped = trio.current_time()
        second = await keeper.ready()
        assert second is not first
        assert trio.current_time() - stopped >= 0.3
        assert first.pid is not None
        assert not is_alive(first.pid)
        nursery.cancel_scope.cancel()


async def test_a_load_that_is_stopped_fails_for_those_who_wait(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    child = await planning(faking("--fake-never-ready"))()

    async def make_child() -> Child:
        return child

    async def come(keeper: Keeper) -> None:
        with pytest.raises(ModelUnavailable, match="it was stopped before it was ready"):
            await keeper.ready()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come, Keeper("fake", make_child, nursery))
        await journal.first("started")
        child.stop()


async def test_a_plan_that_fails_fails_the_load() -> None:
    async def make_child() -> Child:
        raise ModelUnavailable("there is no engine")

    async with trio.open_nursery() as nursery:
        keeper = Keeper("m", make_child, nursery)
        with pytest.raises(ModelUnavailable, match='model "m" cannot be started: there is no eng'):
            await keeper.ready()
        assert keeper.state is KeeperState.FAILED


async def test_a_lost_run_folder_fails_the_load_and_leaves_no_child(
    faking: Fake, planning: Planning, journal: Journal, run_folder: RunFolder
) -> None:
    async with trio.open_nursery() as nursery:
        keeper = Keeper("fake", planning(faking("--host", "127.0.0.1", "--port", "0")), nursery)
        shutil.rmtree(run_folder.path)
        with pytest.raises(ModelUnavailable, match="cannot be used: No such file"):
            await keeper.ready()
    assert not any(is_alive(entry["pid"]) for entry in journal.entries("started"))


async def test_the_end_of_its_nursery_ends_the_child(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with trio.open_nursery() as nursery:
        keeper = Keeper("fake", planning(faking()), nursery)
        await keeper.ready()
        nursery.cancel_scope.cancel()
    assert keeper.state is KeeperState.UNLOADED
    assert not is_alive(journal.entries("started")[0]["pid"])


async def test_the_end_of_its_nursery_ends_a_load(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with trio.open_nursery() as nursery:
        keeper = Keeper("fake", planning(faking("--fake-never-ready")), nursery)
        nursery.start_soon(keeper.ready)
        pid = (await journal.first("started"))["pid"]
        nursery.cancel_scope.cancel()
    assert not is_alive(pid)

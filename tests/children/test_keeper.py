"""A keeper starts one child for all who wait, tells all of them the same, and starts anew."""

from __future__ import annotations

import socket
from contextlib import nullcontext
from pathlib import Path

import pytest
import trio

from llamasup import events
from llamasup.children.child import Child
from llamasup.children.inquest import may_be_a_requests_doing
from llamasup.children.keeper import Keeper
from llamasup.children.restarts import Record
from llamasup.engine.failures import Cause, Kind
from llamasup.errors import (
    ModelNotFound,
    RemoteUnavailable,
)
from llamasup.memory.readings import HOST
from llamasup.states import ChildState, KeeperState
from tests.children.keeping import (
    HOPELESS,
    LADDER,
    Fake,
    Planning,
    contexts,
    keeping,
    kill,
    refusal,
)
from tests.children.landlord import RoomForAll
from tests.harness import Journal, eventually, is_alive

# --- one load for all ---


async def test_all_requests_share_one_load(
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


async def test_the_load_goes_on_when_all_waiting_requests_have_left(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning(faking("--fake-load-seconds", "0.3"))) as keeper:
        async with trio.open_nursery() as requests:
            requests.start_soon(keeper.ready)
            await journal.first("started")
            requests.cancel_scope.cancel()
        await keeper.ready()
    assert len(journal.entries("started")) == 1


async def test_all_waiting_requests_are_told_why(faking: Fake, planning: Planning) -> None:
    told: list[str] = []
    async with keeping(planning(faking(*HOPELESS))) as keeper:

        async def come() -> None:
            told.append(str(await refusal(keeper)))

        async with trio.open_nursery() as requests:
            for _ in range(5):
                requests.start_soon(come)
        assert keeper.state is KeeperState.FAILED
        why = "model \"fake\" cannot be started: unknown model architecture: 'x'"
        assert str(keeper.last_failure) == why
        assert len(told) == 5
        assert {words.startswith(f"{why}; it is given up until") for words in told} == {True}


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
        keeper = Keeper(planning(faking()), RoomForAll(), events.Journal(), nursery)
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
        keeper = Keeper(
            planning({**script, "pool.preload": ["fake"]}), RoomForAll(), events.Journal(), nursery
        )
        await refusal(keeper)
        await eventually(lambda: not nursery.child_tasks)
        keeper.restart()
        await eventually(lambda: keeper.state is KeeperState.READY)
        nursery.cancel_scope.cancel()


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
        assert keeper.history.record.deaths == 0


async def test_the_end_of_its_nursery_ends_the_child(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning(faking())) as keeper:
        await keeper.ready()
    assert keeper.state is KeeperState.UNLOADED
    assert not is_alive(journal.entries("started")[0]["pid"])


# --- models that go ---


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
        keeper.follow(new)
        assert keeper.plan is new
        assert await keeper.ready() is child


async def test_a_child_of_another_launch_answers_to_the_end_and_is_followed_by_one_of_the_new(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    hurried = {**faking(), "recovery.retirement": 0}
    async with keeping(planning(hurried)) as keeper:
        child = await keeper.ready()
        child.enter()
        keeper.follow(planning({**hurried, **faking(context_size=4096)}))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert child.state is ChildState.RETIRING
        child.leave()
        assert await keeper.ready() is not child
    assert contexts(journal) == ["32768", "4096"]


async def test_what_was_given_up_is_tried_again_with_another_plan(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning(faking(*HOPELESS))) as keeper:
        await refusal(keeper)
        assert keeper.history.record.given_up
        keeper.follow(planning(faking()))
        assert (await keeper.ready()).state is ChildState.READY


async def test_a_preloaded_model_with_another_plan_comes_back_by_itself(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    preload = {"pool.preload": ["fake"]}
    async with keeping(planning({**faking(), **preload})) as keeper:
        await keeper.ready()
        keeper.follow(planning({**faking(context_size=4096), **preload}))
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


# --- with RPC servers ---


@pytest.fixture
def remote() -> str:
    """An address where an RPC server could be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def serving(remote: str) -> socket.socket:
    return socket.create_server(("127.0.0.1", int(remote.rpartition(":")[2])))


async def test_a_model_does_without_an_rpc_server_that_does_not_answer_if_it_fits(
    faking: Fake, planning: Planning, journal: Journal, remote: str
) -> None:
    async with keeping(planning(faking(rpc=[remote]))) as keeper:
        await keeper.ready()
        keeper.unload()
        await keeper.until_idle()
        with serving(remote):
            await trio.sleep(1.1)  # what is known of it lasts a second
            await keeper.ready()
    without, with_it = (entry["argv"] for entry in journal.entries("started"))
    assert "--rpc" not in without
    assert with_it[with_it.index("--rpc") + 1] == remote


async def test_a_model_that_does_not_fit_without_it_waits_until_it_answers(
    faking: Fake, planning: Planning, journal: Journal, remote: str, count_model: Path
) -> None:
    config = {**faking(rpc=[remote], path=str(count_model)), "recovery.patience": "0.5s"}
    async with keeping(planning(config), free={HOST: 1}) as keeper:
        told = f"its RPC server {remote} does not answer (Connection refused)"
        for _ in range(3):
            error = await refusal(keeper)
            assert isinstance(error, RemoteUnavailable)
            assert told in str(error)
        assert error.retry_after
        assert not keeper.history.record.given_up
        with serving(remote), trio.fail_after(5):
            while True:
                try:
                    await keeper.ready()
                    break
                except RemoteUnavailable:
                    await trio.sleep(0.1)
    assert len(journal.entries("started")) == 1


async def test_a_preloaded_model_comes_back_by_itself_when_its_rpc_server_does(
    faking: Fake, planning: Planning, remote: str, count_model: Path
) -> None:
    config = {**faking(rpc=[remote], path=str(count_model)), "pool.preload": ["fake"]}
    async with keeping(planning(config), free={HOST: 1}) as keeper:
        keeper.history.record = Record(deaths=6)  # so that it would wait half a minute
        await refusal(keeper)
        with serving(remote):
            await eventually(lambda: keeper.child is not None, within=10)


@pytest.mark.parametrize("is_back", [False, True])
async def test_an_rpc_server_that_is_gone_is_named_and_no_request_is_blamed(
    faking: Fake, planning: Planning, remote: str, is_back: bool
) -> None:
    plan = planning(faking(rpc=[remote]))
    crash = Cause(Kind.REMOTE, "ggml-rpc.cpp:682: Remote RPC server crashed")
    with serving(remote) if is_back else nullcontext():
        cause = await plan.explained(crash)
        hang = await plan.explained(Cause(Kind.HANG, "it did not move"))
    told = "an RPC server broke off, of" if is_back else "its RPC server"
    assert cause.words.startswith(f"{told} {remote}")
    assert cause.words.endswith(crash.words)
    assert hang.kind is (Kind.HANG if is_back else Kind.REMOTE)
    assert not may_be_a_requests_doing(cause, by_itself=True)


# --- put away by an operator ---


async def test_a_child_that_is_put_away_ends_after_its_answers_and_is_not_missed(
    faking: Fake, planning: Planning
) -> None:
    async with keeping(planning({**faking(), "pool.preload": ["fake"]})) as keeper:
        child = await keeper.ready()
        child.enter()
        for _ in range(2):
            keeper.put_away()
            assert child.state is ChildState.RETIRING
        child.leave()
        await keeper.until_idle()
        assert (keeper.state, keeper.loads) == (KeeperState.UNLOADED, 1)
        assert keeper.last_failure is None
        keeper.put_away()
        assert (await keeper.ready()).state is ChildState.READY


async def test_a_load_that_is_put_away_serves_those_who_wait_for_it_with_another_one(
    faking: Fake, planning: Planning, journal: Journal
) -> None:
    async with keeping(planning(faking("--fake-load-seconds", "0.3"))) as keeper:
        async with trio.open_nursery() as requests:
            requests.start_soon(keeper.ready)
            await journal.first("started")
            keeper.put_away()
            assert keeper.state is KeeperState.OVERTAKEN
        assert (keeper.state, keeper.loads) == (KeeperState.READY, 2)


async def test_each_change_of_the_state_is_told(faking: Fake, planning: Planning) -> None:
    told: list[KeeperState] = []
    async with trio.open_nursery() as nursery:
        journal = events.Journal()
        keeper = Keeper(planning(faking()), RoomForAll(), journal, nursery)
        with journal.heard_by(lambda event: told.append(event.state), events.StateChanged):
            await keeper.ready()
            keeper.put_away()
            await keeper.until_idle()
    assert told == [
        *(KeeperState.LOADING, KeeperState.WAITING, KeeperState.LOADING),
        *(KeeperState.READY, KeeperState.UNLOADED),
    ]

"""A lease on a child is a ready child and, if the work needs one, a slot: never one too many."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llamasup.errors import ModelNotLoaded, ModelUnavailable, QueueFull
from llamasup.pool.work import Work
from tests.harness import PATIENCE, Journal, chat, eventually, running
from tests.pool.pooling import CHAT, Fake, child_of, pool_of, requests_to


async def test_a_lease_loads_the_model_and_counts_its_users(faking: Fake) -> None:
    async with pool_of(faking()) as pool:
        async with pool.lease("fake", Work.GENERATE) as lease:
            child = child_of(pool)
            assert lease.address == child.address
            assert (child.users, child.slots.taken) == (1, 1)
            assert await lease.survived()
        assert (child.users, child.slots.taken) == (0, 0)


async def test_requests_wait_for_a_slot_and_are_served_first_come_first_served(
    faking: Fake,
) -> None:
    async with pool_of(faking(parallel=2)) as pool, requests_to(pool) as requests:
        for _ in range(5):
            await requests.come()
        assert sorted(requests.leased) == [0, 1]
        assert pool.waiting("fake") == 3
        for number in (1, 0, 2):
            await requests.finish(number)
        assert requests.leased[2:] == [2, 3, 4]


async def test_what_needs_no_slot_does_not_wait_for_one(
    faking: Fake,
) -> None:
    async with pool_of(faking(parallel=2)) as pool, requests_to(pool) as requests:
        for _ in range(3):
            await requests.come()
        await requests.come(Work.ASK)
        assert requests.leased[2:] == [3]
        assert child_of(pool).users == 3


async def test_a_client_that_leaves_while_it_waits_holds_nothing(
    faking: Fake,
) -> None:
    async with pool_of(faking(parallel=2)) as pool, requests_to(pool) as requests:
        for _ in range(2):
            await requests.come()
        client = await requests.come()
        await requests.come()
        client.cancel()
        await requests.finish(0)
        assert requests.leased[2:] == [3]
        assert child_of(pool).slots.taken == 2


async def test_a_client_that_leaves_while_it_is_served_makes_room(
    faking: Fake,
) -> None:
    async with pool_of(faking(parallel=2)) as pool, requests_to(pool) as requests:
        client = await requests.come()
        await requests.come()
        await requests.come()
        client.cancel()
        await wait_all_tasks_blocked()
        assert requests.leased[2:] == [2]


async def test_requests_that_wait_for_a_child_that_ends_are_served_by_the_next(
    faking: Fake, journal: Journal
) -> None:
    async with pool_of(faking()) as pool, requests_to(pool) as requests:
        await requests.come()
        await requests.come()
        first = child_of(pool)
        first.stop()
        await requests.finish(0)
        with trio.fail_after(10):
            while requests.leased != [0, 1]:
                await wait_all_tasks_blocked(0.005)
        assert child_of(pool) is not first
        assert requests.addresses[1] == child_of(pool).address
    assert len(journal.entries("started")) == 2


async def test_a_model_that_cannot_be_loaded_gives_no_lease(faking: Fake) -> None:
    async with pool_of(faking("--fake-fail-load", "invalid magic characters")) as pool:
        with pytest.raises(ModelUnavailable, match="invalid magic characters"):
            async with pool.lease("fake", Work.GENERATE):
                pytest.fail("there is nothing to lease")


async def test_progress_is_noted_for_the_watchdog(faking: Fake) -> None:
    async with pool_of(faking()) as pool, pool.lease("fake", Work.GENERATE) as lease:
        child_of(pool).last_progress = 0.0
        lease.progressed()
        assert child_of(pool).last_progress == pytest.approx(trio.current_time(), abs=5)


async def test_a_lease_on_a_child_that_runs_out_of_memory_is_followed_by_one_on_the_next_rung(
    faking: Fake,
) -> None:
    config = {**faking(), "ladder.contexts": [8192, 4096]}
    async with pool_of(config) as pool:
        async with pool.lease("fake", Work.GENERATE) as lease:
            first = child_of(pool)
            assert lease.note_out_of_memory("bad_alloc")
        async with pool.lease("fake", Work.GENERATE) as lease:
            assert child_of(pool) is not first
            assert not lease.note_out_of_memory("bad_alloc")
            assert "; context 4096: bad_alloc" in str(lease.exhausted("bad_alloc"))


async def test_an_oom_is_proven_by_a_second_request_and_not_by_one_that_says_it_twice(
    faking: Fake,
) -> None:
    config = {**faking(parallel=2), "ladder.contexts": [8192, 4096]}
    async with (
        pool_of(config) as pool,
        pool.lease("fake", Work.GENERATE) as one,
        pool.lease("fake", Work.GENERATE) as other,
    ):
        child = child_of(pool)
        assert one.note_out_of_memory("bad_alloc")
        assert one.note_out_of_memory("bad_alloc")
        assert child.cause is not None
        assert not child.cause.proven
        assert other.note_out_of_memory("bad_alloc")
        assert child.cause.proven


async def test_an_engine_never_gets_more_requests_than_it_has_slots(
    faking: Fake, journal: Journal
) -> None:
    async with running(faking("--fake-first-byte-delay", "60", parallel=2)) as llamasup:

        async def six_wait() -> bool:
            return bool((await llamasup.model_status("fake"))["waiting"] == 6)

        def two_are_at_the_engine() -> bool:
            return [entry["target"] for entry in journal.entries("request")].count(CHAT) == 2

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(llamasup.ask, "POST", CHAT, chat(5))
            await eventually(six_wait)
            await eventually(two_are_at_the_engine)
            nursery.cancel_scope.cancel()


async def test_all_requests_that_waited_for_a_slot_are_answered(faking: Fake) -> None:
    async with running(faking("--fake-token-delay", "0.02", parallel=2)) as llamasup:
        replies = []

        async def ask() -> None:
            replies.append(await llamasup.ask("POST", CHAT, chat(5)))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask)
    assert [reply.text() for reply in replies] == [" 0 1 2 3 4"] * 8


# --- who only looks ---


async def test_a_look_loads_nothing_and_says_why_there_is_nothing_to_see(
    faking: Fake, journal: Journal
) -> None:
    async with pool_of(faking("--fake-load-seconds", "0.5")) as pool:
        with pytest.raises(ModelNotLoaded, match=r'"fake" is unloaded.*autoload=true'):
            async with pool.lease("fake", Work.LOOK):
                pytest.fail("there is nothing to look at")
        assert not journal.entries("started")
        pool.preload(["fake"])
        await journal.first("started")
        with pytest.raises(ModelNotLoaded, match='"fake" is loading'):
            async with pool.lease("fake", Work.LOOK):
                pytest.fail("there is nothing to look at yet")


async def test_a_look_keeps_no_child_loaded_and_takes_no_slot(faking: Fake) -> None:
    async with pool_of({**faking(), "pool.idle_unload": "0.3s"}) as pool:
        async with pool.lease("fake", Work.GENERATE), pool.lease("fake", Work.LOOK) as look:
            assert look.address == child_of(pool).address
            assert child_of(pool).users == 1
        last_used = child_of(pool).last_used
        with trio.fail_after(PATIENCE):
            while pool.keepers["fake"].child:
                with suppress(ModelNotLoaded):
                    async with pool.lease("fake", Work.LOOK):
                        assert child_of(pool).users == 0
                        assert child_of(pool).last_used == last_used
                await trio.sleep(0.01)


async def test_a_look_is_let_in_when_all_slots_are_taken_and_delays_no_request(
    faking: Fake,
) -> None:
    config = {**faking(), **faking(name="other"), "pool.max_loaded_models": 1}
    async with pool_of(config) as pool:
        async with pool.lease("fake", Work.GENERATE), pool.lease("fake", Work.LOOK):
            pass
        async with pool.lease("fake", Work.LOOK), pool.lease("other", Work.GENERATE):
            assert pool.keepers["fake"].child is None


async def test_no_number_of_looks_takes_all_threads_of_an_engine(faking: Fake) -> None:
    async with pool_of(faking()) as pool, AsyncExitStack() as looks:
        async with pool.lease("fake", Work.GENERATE):
            pass
        for _ in range(4):
            await looks.enter_async_context(pool.lease("fake", Work.LOOK))
        with pytest.raises(QueueFull, match="look at"):
            await looks.enter_async_context(pool.lease("fake", Work.LOOK))
        await looks.aclose()
        async with pool.lease("fake", Work.LOOK):
            pass


async def test_a_look_through_the_front_loads_no_model(faking: Fake, journal: Journal) -> None:
    async with running(faking()) as llamasup:
        for path in ("/props", "/slots", "/metrics?model=fake", "/lora-adapters"):
            reply = await llamasup.ask("GET", path)
            assert reply.status == 503
            assert reply.error["type"]
            assert "unloaded" in reply.error["message"]
        assert not journal.entries("started")
        assert (await llamasup.ask("GET", "/props?autoload=true")).status == 200
        assert (await llamasup.ask("GET", "/props")).status == 200

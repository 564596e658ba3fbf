"""The pool has the models that are offered, and takes leave of those that are not any more."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import trio

from llamasup.children.plan import Plan
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.errors import ModelNotFound, QueueFull
from llamasup.events import Journal, ModelsChanged
from llamasup.pool.pool import Pool
from llamasup.pool.work import Work
from llamasup.states import ChildState
from tests.harness import eventually
from tests.pool.pooling import Fake, child_of, pool_of, requests_to


def planned_anew(pool: Pool, *models: str) -> list[Plan]:
    """The plans that the pool has for these models, and new ones for those that it has not."""
    known = {model: keeper.plan for model, keeper in pool.keepers.items()}
    some = next(iter(known.values()))
    return [known.get(model) or replanned(some, model) for model in models]


def replanned(plan: Plan, model: str) -> Plan:
    """Another plan with the same settings."""
    another = copy.copy(plan)
    another.model = model
    return another


async def test_the_summary_counts_models_and_requests(faking: Fake) -> None:
    async with pool_of({**faking(), **faking(name="other")}) as pool:
        assert pool.summary() == "0 of 2 models loaded, 0 requests in flight"
        async with pool.lease("fake", Work.GENERATE), pool.lease("fake", Work.ASK):
            assert pool.summary() == "1 of 2 models loaded, 2 requests in flight"


async def test_models_come_and_go(faking: Fake) -> None:
    async with pool_of({**faking(), **faking(name="other")}) as pool:
        pool.offer(planned_anew(pool, "fake", "new"))
        assert list(pool.keepers) == ["fake", "new"]
        async with pool.lease("new", Work.ASK) as lease:
            assert await lease.survived()


async def test_a_model_that_is_still_offered_keeps_its_keeper(faking: Fake) -> None:
    async with pool_of({**faking(), **faking(name="other")}) as pool:
        before = dict(pool.keepers)
        pool.offer(planned_anew(pool, "other", "fake"))
        assert pool.keepers == before


async def test_a_model_that_goes_while_its_child_serves_goes_after_its_answers(
    faking: Fake,
) -> None:
    async with pool_of({**faking(), **faking(name="other")}) as pool:
        async with pool.lease("fake", Work.GENERATE) as lease:
            pool.offer(planned_anew(pool, "other"))
            pool.offer(planned_anew(pool, "other"))
            assert pool.keepers.keys() == {"fake", "other"}
            assert await lease.survived()
        await eventually(lambda: pool.keepers.keys() == {"other"})


async def test_a_model_that_comes_back_before_its_child_is_gone_is_loaded_again(
    faking: Fake,
) -> None:
    async with pool_of({**faking(), **faking(name="other")}) as pool:
        plans = planned_anew(pool, "fake", "other")
        async with pool.lease("fake", Work.GENERATE):
            first = child_of(pool)
            pool.offer(plans[1:])
            pool.offer(plans)
        async with pool.lease("fake", Work.GENERATE):
            assert child_of(pool) is not first


async def test_a_request_for_a_model_that_is_not_offered_any_more_is_told(faking: Fake) -> None:
    async with pool_of({**faking(), **faking(name="other")}) as pool:
        failures = []

        async def wait() -> None:
            with pytest.raises(ModelNotFound) as failure:
                async with pool.lease("fake", Work.GENERATE):
                    pytest.fail("there is nothing to lease")
            failures.append(failure.value)

        async with pool.lease("fake", Work.GENERATE), trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await eventually(lambda: pool.waiting("fake") == 1)
            pool.offer(planned_anew(pool, "other"))
        assert len(failures) == 1


async def test_another_plan_that_launches_alike_keeps_the_child(faking: Fake) -> None:
    async with pool_of(faking()) as pool:
        new = replanned(pool.keepers["fake"].plan, "fake")
        async with pool.lease("fake", Work.ASK):
            child = child_of(pool)
            pool.offer([new])
            assert pool.keepers["fake"].plan is new
            assert child.state is ChildState.READY


def change(pool: Pool, in_effect: InEffect, config: Mapping[str, object]) -> None:
    in_effect.replace(load(None, {}, config))
    pool.residency.wake()


async def test_other_numbers_hold_for_requests_that_come_then(faking: Fake) -> None:
    config = faking()
    in_effect = InEffect(load(None, {}, config))
    async with pool_of(config, in_effect) as pool, requests_to(pool) as requests:
        await requests.come()
        await requests.come()
        change(pool, in_effect, {**config, "pool.max_queue": 1})
        with pytest.raises(QueueFull):
            async with pool.lease("fake", Work.GENERATE):
                pytest.fail("the queue is full")
        await requests.finish(0)
        assert requests.leased == [0, 1]


async def test_a_lower_number_of_models_holds_for_those_that_are_loaded_once_they_idle(
    faking: Fake,
) -> None:
    config = {**faking(), **faking(name="other")}
    in_effect = InEffect(load(None, {}, config))
    async with pool_of(config, in_effect) as pool:
        keepers = pool.keepers
        async with pool.lease("fake", Work.ASK):
            async with pool.lease("other", Work.ASK):
                change(pool, in_effect, {**config, "pool.max_loaded_models": 1})
                assert keepers["fake"].child
                assert keepers["other"].child
            await eventually(lambda: keepers["other"].idle)
        assert keepers["fake"].child
        async with pool.lease("other", Work.ASK):
            assert keepers["fake"].child is None


async def test_a_lower_number_of_models_holds_at_once_for_those_that_idle(faking: Fake) -> None:
    config = {**faking(), **faking(name="other")}
    in_effect = InEffect(load(None, {}, config))
    async with pool_of(config, in_effect) as pool:
        for model in ("fake", "other"):
            async with pool.lease(model, Work.ASK):
                pass
        change(pool, in_effect, {**config, "pool.max_loaded_models": 1})
        await eventually(lambda: pool.keepers["fake"].idle)
        assert pool.keepers["other"].child


# --- at an operator's wish ---


async def test_a_model_is_loaded_without_a_request_once_however_often_that_is_wished(
    faking: Fake,
) -> None:
    async with pool_of(faking("--fake-load-seconds", "0.2")) as pool:
        for _ in range(50):
            pool.load("fake")
        await eventually(lambda: pool.keepers["fake"].child is not None)
        pool.load("fake")
        assert pool.keepers["fake"].loads == 1
        pool.unload("fake")
        await pool.keepers["fake"].until_idle()
        pool.load("fake")
        await eventually(lambda: pool.keepers["fake"].child is not None)
        assert pool.keepers["fake"].loads == 2


async def test_requests_that_wait_are_served_though_their_model_is_unloaded(faking: Fake) -> None:
    async with pool_of(faking()) as pool:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                async with pool.lease("fake", Work.GENERATE):
                    served.append(child_of(pool))

            served: list[object] = []
            async with pool.lease("fake", Work.GENERATE):
                first = child_of(pool)
                nursery.start_soon(ask)
                await eventually(lambda: pool.waiting("fake") == 1)
                pool.unload("fake")
            await eventually(lambda: bool(served))
        assert served != [first]


async def test_that_there_are_other_models_is_told(faking: Fake) -> None:
    journal, told = Journal(), list[object]()
    with journal.heard_by(told.append, ModelsChanged):
        async with pool_of(faking(), journal=journal) as pool:
            assert told == [ModelsChanged()]
            for models, times in ((["fake"], 1), (["fake", "new"], 2), (["new"], 3), (["new"], 3)):
                pool.offer(planned_anew(pool, *models))
                assert len(told) == times

"""What a llamasup tells those in front of it: true at each moment, and told when it changes."""

from __future__ import annotations

import pytest
import trio

from llamasup.errors import ModelMoved
from llamasup.models.names import Choice
from llamasup.pool.offers import Document, Offers
from llamasup.pool.pool import Pool
from llamasup.pool.work import Work
from tests.harness import eventually, loop_holdups
from tests.pool.pooling import Fake, pool_of

TWO = {"pool.max_loaded_models": 1, "pool.turn": 60}


def choices(pool: Pool) -> list[Choice]:
    return [Choice(model, model) for model in pool.keepers]


async def told(offers: Offers, pool: Pool) -> Document:
    return await offers.after(None, 0, lambda: choices(pool))


async def test_states_slots_and_what_would_go_are_told(faking: Fake) -> None:
    async with pool_of({**faking(parallel=2), **faking(name="other"), **TWO}) as pool:
        offers = Offers(pool)
        models = (await told(offers, pool))["models"]
        assert {offer["where"] for offer in models.values()} == {"fits"}
        async with pool.lease("fake", Work.GENERATE):
            models = (await told(offers, pool))["models"]
            fake = models["fake"]
            assert (fake["where"], fake["slots"], fake["taken"]) == ("loaded", 2, 1)
            assert models["other"]["where"] == "evicts"
            assert fake["origins"] == [pool.outside.fleet.ourselves]


async def test_a_question_is_answered_when_there_is_news_and_else_when_its_time_is_over(
    faking: Fake,
) -> None:
    async with pool_of(faking()) as pool, trio.open_nursery() as nursery:
        offers, news = Offers(pool), []
        version = (await told(offers, pool))["version"]

        async def wait_for_news() -> None:
            news.append(await offers.after(version, 20, lambda: choices(pool)))

        nursery.start_soon(wait_for_news)
        await trio.sleep(0.1)
        assert not news
        async with pool.lease("fake", Work.GENERATE):
            await eventually(lambda: news)
        assert news[0]["version"] != version
        now = (await told(offers, pool))["version"]
        assert (await offers.after(now, 0.1, lambda: choices(pool)))["version"] == now


async def test_a_question_does_not_hold_up_the_end(faking: Fake) -> None:
    async with pool_of(faking()) as pool, trio.open_nursery() as nursery:
        stopping, told_at_last = trio.Event(), []
        offers = Offers(pool, stopping)
        version = (await told(offers, pool))["version"]

        async def wait_for_news() -> None:
            told_at_last.append(await offers.after(version, 20, lambda: choices(pool)))

        nursery.start_soon(wait_for_news)
        await trio.sleep(0.1)
        stopping.set()
        await eventually(lambda: told_at_last, within=1)
        assert told_at_last[0]["draining"]


async def test_an_expectation_that_does_not_hold_any_more_is_refused(faking: Fake) -> None:
    async with pool_of({**faking(), **faking(name="other"), **TWO}) as pool:
        offers = Offers(pool)
        await told(offers, pool)
        await offers.demand("fake", b"fits")
        with pytest.raises(ModelMoved):
            await offers.demand("fake", b"loaded")
        async with pool.lease("fake", Work.GENERATE):
            await offers.demand("fake", b"loaded")
            with pytest.raises(ModelMoved, match="is not here as expected"):
                await offers.demand("other", b"fits")
        await offers.demand("unknown", b"fits")


async def test_a_model_that_is_withdrawn_meanwhile_is_no_error(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(faking()) as pool:
        offers = Offers(pool)

        async def withdraw() -> None:
            pool.offer([])

        monkeypatch.setattr(pool.residency, "measure", withdraw)
        with pytest.raises(ModelMoved):
            await offers.demand("fake", b"fits")


async def test_a_thousand_models_hold_nobody_up(faking: Fake) -> None:
    path = str(faking()["models.fake.path"])
    config = {f"models.m{number}.path": path for number in range(1000)}
    async with pool_of({**faking(), **config}) as pool:
        offers = Offers(pool)
        version = (await told(offers, pool))["version"]
        with loop_holdups() as holdups:
            await offers.after(version, 0.5, lambda: choices(pool))
            await trio.lowlevel.checkpoint()
            assert holdups.longest() < 0.01

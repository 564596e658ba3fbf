"""Forecasts say whether a model fits, what would go for it, or that it cannot be loaded."""

from __future__ import annotations

import pytest
import trio
from attrs import evolve

from llamasup.children.model_plan import ModelPlan
from llamasup.endpoints.balance import Where
from llamasup.errors import EngineUnusable
from llamasup.memory.ladder import Rung
from llamasup.pool.forecasts import Forecasts
from llamasup.pool.work import Work
from tests.harness import eventually
from tests.pool.pooling import Fake, pool_of

TWO = {"pool.max_loaded_models": 1, "pool.turn": 60}


async def test_what_is_free_fits_and_what_is_taken_has_to_go(faking: Fake) -> None:
    async with pool_of({**faking(), **faking(name="other"), **TWO}) as pool:
        forecasts = Forecasts(pool)
        assert forecasts.of("other").where is Where.CANNOT  # nothing is known yet
        await forecasts.refresh()
        assert forecasts.of("other").where is Where.FITS
        async with pool.lease("fake", Work.GENERATE):
            await forecasts.refresh()
            assert forecasts.of("other").where is Where.EVICTS
            held = sum(pool.residency.places["fake"].holds.values())
            assert forecasts.of("other").cost == held


async def test_a_model_that_was_given_up_cannot_be_loaded(faking: Fake) -> None:
    async with pool_of(faking()) as pool:
        forecasts, keeper = Forecasts(pool), pool.keepers["fake"]
        keeper.history.record = evolve(keeper.history.record, given_up=True)
        await forecasts.refresh()
        assert forecasts.of("fake").where is Where.CANNOT


async def test_after_the_first_survey_a_slow_one_holds_nothing_up(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamasup.pool.forecasts._MEASURED_FOR", 0)
    slow, asked = trio.Event(), []

    async def rungs(_plan: ModelPlan) -> list[Rung]:
        asked.append(1)
        await slow.wait()
        raise EngineUnusable("no engine")

    async with pool_of(faking()) as pool:
        forecasts = Forecasts(pool)
        await forecasts.refresh()
        monkeypatch.setattr(ModelPlan, "rungs", rungs)

        async def is_asked() -> bool:
            with trio.fail_after(1):
                await forecasts.refresh()
            return bool(asked)

        await eventually(is_asked)
        assert forecasts.of("fake").where is Where.FITS
        slow.set()

        async def cannot_be_loaded() -> bool:
            await forecasts.refresh()
            return forecasts.of("fake").where is Where.CANNOT

        await eventually(cannot_be_loaded)

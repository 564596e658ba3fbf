"""Forecasts say whether a model fits, what would go for it, or that it cannot be loaded."""

from __future__ import annotations

from attrs import evolve

from llamasup.endpoints.balance import Where
from llamasup.pool.forecasts import Forecasts
from llamasup.pool.work import Work
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

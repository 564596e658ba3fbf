"""Requests share surveys."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import trio

from llamasup.pool.fits import Survey, survey
from llamasup.pool.pool import Pool
from tests.harness import running

Fake = Callable[..., Mapping[str, object]]


async def test_requests_that_ask_what_fits_during_a_survey_share_the_next_one(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveys = list[int]()

    async def surveying(pool: Pool) -> Survey:
        surveys.append(1)
        await trio.sleep(0.2)
        return await survey(pool)

    monkeypatch.setattr("llamasup.control.surveys.survey", surveying)
    async with running(faking()) as llamasup, trio.open_nursery() as nursery:

        async def ask() -> None:
            reply = await llamasup.ask("GET", "/modelFits")
            assert [model["name"] for model in reply.json()["models"]] == ["fake"]

        for _ in range(20):
            nursery.start_soon(ask)
    assert len(surveys) <= 3

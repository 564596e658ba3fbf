"""The fleet: which models are elsewhere, by which names, and how it follows a configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from llamasup.config.schema import EndpointSettings
from llamasup.endpoints.fleet import Fleet
from llamasup.events import Journal
from tests.endpoints.answering import answering
from tests.endpoints.elsewhere import free_port
from tests.harness import eventually

MODELS = {"/v1/models": (200, {"data": [{"id": "a.gguf"}, {"id": "b"}]})}


@asynccontextmanager
async def fleet_of(*entries: EndpointSettings) -> AsyncIterator[Fleet]:
    async with trio.open_nursery() as nursery:
        fleet = Fleet(Journal(), nursery)
        fleet.follow(entries)
        yield fleet
        nursery.cancel_scope.cancel()


def entry(name: str, address: object, **more: Any) -> EndpointSettings:
    return EndpointSettings(name, f"http://{address}", **more)


async def test_models_are_found_by_name_and_have_all_their_instances() -> None:
    async with (
        answering(MODELS) as (address, _),
        fleet_of(entry("x", address), entry("y", address, models=("b",))) as fleet,
    ):
        await eventually(lambda: len(fleet.models.get("b", ())) == 2)
        assert [instance.name for instance in fleet.models["a"]] == ["x"]
        assert [fleet.find(name) for name in ("a", "A.gguf", "B", "c")] == ["a", "a", "b", None]


async def test_a_model_of_an_endpoint_that_only_starts_is_awaited() -> None:
    async with answering(MODELS) as (address, _), fleet_of(entry("x", address)) as fleet:
        assert fleet.find("b") is None
        assert await fleet.await_model("b") == "b"
        assert await fleet.await_model("c") is None


async def test_what_an_endpoint_cannot_have_is_not_awaited() -> None:
    away = entry("x", f"127.0.0.1:{free_port()}", models=("only-*",))
    async with fleet_of(away) as fleet:
        with trio.fail_after(1):
            assert await fleet.await_model("other") is None
        with trio.move_on_after(0.1) as scope:
            await fleet.await_model("only-this")
        assert scope.cancelled_caught


async def test_it_follows_the_configuration_and_keeps_what_stays() -> None:
    async with (
        answering(MODELS) as (address, _),
        answering(MODELS) as (other, _),
        fleet_of(entry("x", address)) as fleet,
    ):
        await eventually(lambda: fleet.models)
        [before] = fleet.instances
        fleet.follow([entry("x", address, rename={"b": "z"}), entry("y", other)])
        await eventually(lambda: "z" in fleet.models and len(fleet.models["a"]) == 2)
        assert before in fleet.instances
        fleet.follow([entry("y", other)])
        assert [instance.name for instance in fleet.models["b"]] == ["y"]
        fleet.follow([entry("y", address)])
        assert not fleet.models
        await eventually(lambda: fleet.models)

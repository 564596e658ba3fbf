"""The status tells of every child, and why there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from llamasup import __version__
from tests.harness import FAKE, Llamasup, chat, eventually, is_alive, request, running

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"


async def load(llamasup: Llamasup, model: str = "fake") -> None:
    reply = await llamasup.ask("POST", CHAT, chat(1, stream=False, model=model))
    assert reply.status == 200


async def test_the_status_tells_of_the_engine_and_of_every_child(faking: Fake) -> None:
    async with running(faking(parallel=3)) as llamasup:
        await load(llamasup)
        status = await llamasup.status()
        [model] = status["models"]
        child = model["child"]
        assert is_alive(child["pid"])
    assert status["version"] == __version__
    assert 0 <= status["uptime_seconds"] < 60
    assert status["engine"]["command"] == FAKE
    assert status["engine"]["version"].startswith("version: ")
    assert (model["name"], model["state"], model["loads"]) == ("fake", "ready", 1)
    assert model["path"].endswith("/fake.gguf")
    assert model["last_failure"] is None
    assert child["address"].startswith("unix:/")
    assert model["waiting"] == 0
    assert {key: child[key] for key in ("slots", "slots_taken", "in_flight")} == {
        "slots": 3,
        "slots_taken": 0,
        "in_flight": 0,
    }


async def test_the_status_counts_requests_that_are_served_and_that_wait(faking: Fake) -> None:
    async with running(faking("--fake-first-byte-delay", "60")) as llamasup:
        async with llamasup.connect() as first, llamasup.connect() as second:
            for client in (first, second):
                await client.send(request("POST", CHAT, chat(1)))

            async def both_are_there() -> bool:
                model = await llamasup.model_status("fake")
                child = model["child"]
                return child is not None and (
                    (child["in_flight"], child["slots_taken"], model["waiting"]) == (1, 1, 1)
                )

            await eventually(both_are_there)

        async def both_have_left() -> bool:
            model = await llamasup.model_status("fake")
            child = model["child"]
            return (child["in_flight"], child["slots_taken"], model["waiting"]) == (0, 0, 0)

        await eventually(both_have_left)


async def test_the_status_says_why_a_model_is_not_loaded(faking: Fake) -> None:
    config = faking("--fake-fail-load", "invalid magic characters", "--fake-scripted-lives", "1")
    async with running(config) as llamasup:
        failed = await llamasup.ask("POST", CHAT, chat(1))
        assert (failed.status, failed.error["code"]) == (503, "model_unavailable")
        model = await llamasup.model_status("fake")
        assert (model["state"], model["child"], model["loads"]) == ("failed", None, 1)
        assert "invalid magic characters" in model["last_failure"]
        assert failed.error["message"].startswith(model["last_failure"])

        assert (await llamasup.ask("POST", "/api/restart?model=fake")).status == 200
        await load(llamasup)
        model = await llamasup.model_status("fake")
        assert (model["state"], model["last_failure"], model["loads"]) == ("ready", None, 2)


async def test_the_status_tells_the_rungs_and_the_one_that_a_model_is_on(faking: Fake) -> None:
    no_room = ("--fake-fail-load", "insufficient memory", "--fake-fail-above-ctx", "4096")
    config = {**faking(*no_room), "ladder.contexts": [8192, 4096]}
    async with running(config) as llamasup:
        assert (await llamasup.model_status("fake"))["rung"] is None
        await load(llamasup)
        model = await llamasup.model_status("fake")
    assert model["rungs"] == ["context 8192", "context 4096"]
    assert model["rung"] == "context 4096"
    assert model["child"]["memory"] > 0


async def test_the_status_is_told_while_the_engine_is_not_known(faking: Fake) -> None:
    config = {**faking(), "engine.command": "sh -c 'exec sleep 60'"}
    async with running(config, os.environ) as llamasup:
        assert (await llamasup.status())["engine"] is None

"""Control tells what is configured, what is loaded, and why something is not."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from llamasup import __version__, events
from llamasup.config.schema import Config, Server
from llamasup.control.app import ControlApp
from llamasup.pool.fits import Survey, survey
from llamasup.pool.pool import Pool
from tests.conftest import EMPTY_MODEL
from tests.harness import (
    FAKE,
    Journal,
    Llamasup,
    Reply,
    chat,
    eventually,
    is_alive,
    request,
    running,
)

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"


async def load(llamasup: Llamasup, model: str = "fake") -> None:
    reply = await llamasup.ask("POST", CHAT, chat(1, stream=False, model=model))
    assert reply.status == 200


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
async def test_health_names_the_models_that_are_loaded(faking: Fake, path: str) -> None:
    async with running(faking()) as llamasup:
        reply = await llamasup.ask("GET", path)
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert reply.json() == {"status": "ok", "loaded_models": []}
        await load(llamasup)
        assert (await llamasup.ask("GET", path)).json()["loaded_models"] == ["fake"]


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
async def test_models_are_listed_as_openai_does_with_their_aliases_and_states(
    faking: Fake, path: str
) -> None:
    config = {
        **faking(aliases=["gpt-4o", "mini"]),
        **faking("--fake-fail-load", "invalid magic characters", name="broken"),
    }
    began = int(time.time())
    async with running(config) as llamasup:
        await load(llamasup, "mini")
        failed = await llamasup.ask("POST", CHAT, chat(1, model="broken"))
        assert failed.status == 503
        listing = (await llamasup.ask("GET", path)).json()
    assert listing["object"] == "list"
    fake, broken = listing["data"]
    assert began <= fake.pop("created") <= time.time()
    assert fake == {
        "id": "fake",
        "object": "model",
        "owned_by": "llamasup",
        "aliases": ["gpt-4o", "mini"],
        "status": {"value": "ready"},
        "source": "configured",
        "context": 32768,
        "max_context": None,
        "meta": None,
    }
    assert (broken["id"], broken["status"]) == ("broken", {"value": "failed"})


async def test_a_listing_tells_the_contexts_that_the_headers_tell(
    faking: Fake, count_model: Path
) -> None:
    config = faking(name="count") | {"models.count.path": str(count_model)}
    async with running(config) as llamasup:
        [count] = (await llamasup.ask("GET", "/v1/models")).json()["data"]
    assert (count["context"], count["max_context"]) == (None, 32768)
    assert count["meta"] == {"n_ctx_train": 32768}


@pytest.mark.parametrize("asked", ["o/n:Q4_0", "O/N:q4_0", "o%2Fn:Q4_0", "an%20alias"])
async def test_one_model_is_told_of_as_in_the_listing(faking: Fake, asked: str) -> None:
    model = faking(name="x", aliases=["an alias"])
    config = {key.replace(".x.", ".o/n:Q4_0."): value for key, value in model.items()}
    async with running(config) as llamasup:
        [listed] = (await llamasup.ask("GET", "/v1/models")).json()["data"]
        assert listed["id"] == "o/n:Q4_0"
        for prefix in ("", "/v1"):
            reply = await llamasup.ask("GET", f"{prefix}/models/{asked}")
            assert (reply.status, reply.json()) == (200, listed)


async def test_a_model_that_is_not_there_is_told_of_with_near_ones(faking: Fake) -> None:
    async with running(faking()) as llamasup:
        reply = await llamasup.ask("GET", "/v1/models/fakee")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert 'did you mean "fake"' in reply.error["message"]


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

        assert (await restart(llamasup, "fake")).status == 200
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


# --- restarts ---


async def restart(llamasup: Llamasup, model: str, **headers: str) -> Reply:
    return await llamasup.ask("POST", f"/api/restart?model={model}", headers=headers)


async def test_a_restart_finds_a_model_as_chats_do(faking: Fake) -> None:
    async with running({**faking(aliases=["gpt-4o"]), **faking(name="other")}) as llamasup:
        assert (await restart(llamasup, "GPT-4o")).json()["model"] == "fake"
        unknown = await restart(llamasup, "otherr")
        assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
        assert '"other"' in unknown.error["message"]
        unnamed = await llamasup.ask("POST", "/api/restart")
        assert unnamed.status == 400
        assert "?model=NAME" in unnamed.error["message"]


async def test_a_restart_replaces_the_child(faking: Fake) -> None:
    async with running(faking(name="a b")) as llamasup:
        await load(llamasup, "a b")
        first = (await llamasup.model_status("a b"))["child"]["pid"]
        reply = await restart(llamasup, "a+b")
        assert reply.status == 200
        assert reply.json()["model"] == "a b"
        await load(llamasup, "a b")
        assert (await llamasup.model_status("a b"))["child"]["pid"] != first
        assert not is_alive(first)


async def test_a_model_that_was_given_up_works_again_after_a_restart(
    faking: Fake, journal: Journal
) -> None:
    config = faking("--fake-fail-load", "invalid magic characters", "--fake-scripted-lives", "1")
    async with running(config) as llamasup:
        for _ in range(2):
            assert (await llamasup.ask("POST", CHAT, chat(1))).status == 503
        assert len(journal.entries("started")) == 1
        assert (await restart(llamasup, "fake")).status == 200
        await load(llamasup)


async def test_no_web_page_can_restart_a_model(faking: Fake) -> None:
    async with running(faking()) as llamasup:
        await load(llamasup)
        reply = await restart(llamasup, "fake", Origin="http://evil.example")
        assert (reply.status, reply.error["code"]) == (403, "forbidden")
        await load(llamasup)
        assert (await llamasup.model_status("fake"))["loads"] == 1


@pytest.mark.parametrize("query", ["", "?model=", "?model=nobody", "?name=fake", "?model=%ff"])
async def test_only_a_model_that_is_there_can_be_restarted(faking: Fake, query: str) -> None:
    async with running(faking()) as llamasup:
        reply = await llamasup.ask("POST", f"/api/restart{query}")
        named = query in ("?model=nobody", "?model=%ff")
        expected = (404, "model_not_found") if named else (400, "invalid_parameter")
        assert (reply.status, reply.error["code"]) == expected


async def test_to_look_at_the_restart_restarts_nothing(faking: Fake) -> None:
    async with running(faking()) as llamasup:
        await load(llamasup)
        assert (await llamasup.ask("GET", "/api/restart?model=fake")).status == 405
        await load(llamasup)
        assert (await llamasup.model_status("fake"))["loads"] == 1


async def test_the_status_is_told_while_the_engine_is_not_known(faking: Fake) -> None:
    config = {**faking(), "engine.command": "sh -c 'exec sleep 60'"}
    async with running(config, os.environ) as llamasup:
        assert (await llamasup.status())["engine"] is None


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/api/status"])
async def test_a_look_at_the_head_has_no_body(faking: Fake, path: str) -> None:
    async with running(faking()) as llamasup, llamasup.connect() as client:
        await client.send(request("HEAD", path) + request("GET", path))
        head = await client.reply(to_head=True)
        whole = await client.reply()
    assert (head.status, whole.status) == (200, 200)
    assert head.headers["content-type"] == "application/json"
    assert whole.json()


class Rotating:
    """A configuration whose key changes just before it is the posted one's turn."""

    config = Config(server=Server(admin_key="old"))

    async def change(self, made: Callable[[Config], Config]) -> None:
        made(Config(server=Server(admin_key="new")))


class Hanging:
    """A configuration whose disk does not answer."""

    config = Config(server=Server(admin_key="key"))

    async def change(self, made: Callable[[Config], Config]) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "no answer within 10 s")


async def status_of_a_post(running: Any, key: str) -> int:
    """What is answered to an operator with this key who posts a configuration."""
    app = ControlApp(running, *cast(Any, (None, None, None, None, events.Journal())), started=0.0)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {key}".encode())]
    await app(
        {"type": "http", "method": "POST", "path": "/config", "headers": headers}, receive, send
    )
    status: int = sent[0]["status"]
    return status


async def test_a_key_that_is_changed_meanwhile_changes_nothing_any_more() -> None:
    assert await status_of_a_post(Rotating(), "old") == 401


async def test_a_disk_that_does_not_answer_is_told_as_what_passes() -> None:
    assert await status_of_a_post(Hanging(), "key") == 503


async def test_requests_that_ask_what_fits_during_a_survey_share_the_next_one(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveys = list[int]()

    async def surveying(pool: Pool) -> Survey:
        surveys.append(1)
        await trio.sleep(0.2)
        return await survey(pool)

    monkeypatch.setattr("llamasup.control.app.survey", surveying)
    async with running(faking()) as llamasup, trio.open_nursery() as nursery:

        async def ask() -> None:
            reply = await llamasup.ask("GET", "/modelFits")
            assert [model["name"] for model in reply.json()["models"]] == ["fake"]

        for _ in range(20):
            nursery.start_soon(ask)
    assert len(surveys) <= 3


async def test_a_model_whose_name_is_no_text_is_told_of_all_the_same(
    faking: Fake, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / os.fsdecode(b"n\xe4me.gguf")).write_bytes(EMPTY_MODEL)
    async with running({**faking(), "discover.folders": [str(folder)]}) as llamasup:
        for path, models in (("/modelFits", "models"), ("/v1/models", "data")):
            reply = await llamasup.ask("GET", path)
            assert reply.status == 200
            assert len(reply.json()[models]) == 2

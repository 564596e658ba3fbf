"""Control tells what is configured, what is loaded, and why something is not."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from llamasup import events
from llamasup.config.schema import Config, Server
from llamasup.control.app import ControlApp
from llamasup.front.table import TABLE, Page
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
    script,
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
        assert reply.json() == {"status": "ok", "loaded_models": [], "models": {}}
        await load(llamasup)
        health = (await llamasup.ask("GET", path)).json()
        assert (health["loaded_models"], health["models"]) == (["fake"], {"fake": "loaded"})


async def test_control_has_an_answer_for_every_page_of_the_table(faking: Fake) -> None:
    async with running(faking()) as llamasup:
        for route in TABLE:
            if isinstance(route.goal, Page):
                path = route.path.decode().replace("{model}", "fake")
                async with llamasup.connect() as client:
                    await client.send(request(route.methods[0].decode(), path, b""))
                    status, _ = await client.head()
                assert status in (200, 400, 403, 501), path  # 501: what Ollama would do


async def test_a_llamasup_that_can_serve_is_ready(faking: Fake) -> None:
    async with running(faking()) as llamasup:
        for path in ("/livez", "/readyz", "/livez/"):
            reply = await llamasup.ask("GET", path)
            assert (reply.status, reply.json()) == (200, {"status": "ok"})


async def test_without_an_engine_it_lives_but_is_not_ready(faking: Fake, tmp_path: Path) -> None:
    engine = script(tmp_path / "engine", "exit 3")
    async with running({**faking(), "engine.command": engine}) as llamasup:
        assert (await llamasup.ask("GET", "/livez")).status == 200
        reply = await llamasup.ask("GET", "/readyz")
        assert (reply.status, reply.json()["status"]) == (503, "engine unusable")
        assert engine in reply.json()["why"]
        script(Path(engine), f'exec {FAKE} "$@"')
        assert (await llamasup.ask("GET", "/readyz")).status == 200


async def test_what_needs_no_engine_is_ready_without_one(tmp_path: Path) -> None:
    engine = script(tmp_path / "engine", "exit 3")
    config = {"engine.command": engine, "models.speech.command": ["server", "${PORT}"]}
    async with running(config) as llamasup:
        assert (await llamasup.ask("GET", "/readyz")).status == 200


# --- loading and unloading ---


async def test_a_model_is_loaded_and_unloaded_by_any_of_its_names(faking: Fake) -> None:
    async with running({**faking(aliases=["mini"]), **faking(name="other")}) as llamasup:

        async def is_loaded() -> bool:
            return (await llamasup.model_status("fake"))["child"] is not None

        async def is_unloaded() -> bool:
            return (await llamasup.model_status("fake"))["state"] == "unloaded"

        for _ in range(2):
            for name in ("MINI", "openai/fake"):
                reply = await llamasup.ask("POST", "/models/load", {"model": name})
                assert (reply.status, reply.json()) == (200, {"success": True})
            await eventually(is_loaded)
            for name in ("fake", "mini:latest"):
                reply = await llamasup.ask("POST", "/models/unload", {"model": name})
                assert (reply.status, reply.json()) == (200, {"success": True})
            await eventually(is_unloaded)
        assert (await llamasup.model_status("fake"))["loads"] == 2
        assert (await llamasup.model_status("other"))["loads"] == 0


async def test_a_model_is_unloaded_only_after_its_answers(faking: Fake) -> None:
    async with running(faking("--fake-token-delay", "0.05")) as llamasup:
        async with llamasup.connect() as client:
            await client.send(request("POST", CHAT, chat(20)))
            await client.read_until(b"data: ")
            assert (await llamasup.ask("POST", "/models/unload", {"model": "fake"})).status == 200
            answer = await client.read_until(b"[DONE]")
        assert b" 19" in answer
        await load(llamasup)
        assert (await llamasup.model_status("fake"))["loads"] == 2


async def test_a_preloaded_model_that_is_unloaded_stays_so_until_a_request(faking: Fake) -> None:
    async with running({**faking(), "pool.preload": ["fake"]}) as llamasup:

        async def is_in(state: str) -> bool:
            return bool((await llamasup.model_status("fake"))["state"] == state)

        await eventually(lambda: is_in("ready"))
        await llamasup.ask("POST", "/models/unload", {"model": "fake"})
        await eventually(lambda: is_in("unloaded"))
        await trio.sleep(0.2)
        assert (await llamasup.model_status("fake"))["loads"] == 1
        await load(llamasup)


async def test_only_a_model_that_is_there_can_be_loaded(faking: Fake, journal: Journal) -> None:
    bodies = [b"", b"{", b"[]", b"{}", {"model": 7}, {"model": ""}, {"model": "none"}]
    async with running({**faking(), "server.unknown_model": "default"}) as llamasup:
        for path in ("/models/load", "/models/unload"):
            for body in bodies:
                reply = await llamasup.ask("POST", path, body)
                assert reply.status == (404 if body == {"model": "none"} else 400)
                assert reply.error["message"]
    assert not journal.entries()


async def test_to_unload_takes_the_admin_key_if_there_is_one(faking: Fake) -> None:
    async with running({**faking(), "server.admin_key": "key"}) as llamasup:
        assert (await llamasup.ask("POST", "/models/load", {"model": "fake"})).status == 200
        assert (await llamasup.ask("POST", "/models/unload", {"model": "fake"})).status == 401
        key = {"Authorization": "Bearer key"}
        unloaded = await llamasup.ask("POST", "/models/unload", {"model": "fake"}, key)
        assert unloaded.status == 200


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
    others = cast(Any, (None, None, None, None, events.Journal()))
    app = ControlApp(running, *others, started=0.0, stopping=trio.Event())
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {key}".encode())]
    target = {"path": "/config", "raw_path": b"/config", "query_string": b""}
    await app({"type": "http", "method": "POST", **target, "headers": headers}, receive, send)
    status: int = sent[0]["status"]
    return status


async def test_a_key_that_is_changed_meanwhile_changes_nothing_any_more() -> None:
    assert await status_of_a_post(Rotating(), "old") == 401


async def test_a_disk_that_does_not_answer_is_told_as_what_passes() -> None:
    assert await status_of_a_post(Hanging(), "key") == 503

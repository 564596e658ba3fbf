"""Editors and other clients of Ollama find the models, and nothing is loaded for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ollama
import pytest
import trio

from llamasup.apis.ollama_models import VERSION
from tests.harness import Llamasup, counting_model, eventually, request, running

Fake = Callable[..., Mapping[str, object]]


async def post(llamasup: Llamasup, path: str, body: object) -> tuple[int, Any]:
    reply = await llamasup.ask("POST", path, body)
    return reply.status, reply.json()


async def get(llamasup: Llamasup, path: str) -> Any:
    reply = await llamasup.ask("GET", path)
    assert reply.status == 200, reply.body
    return reply.json()


async def loads(llamasup: Llamasup) -> list[int]:
    return [model["loads"] for model in (await llamasup.status())["models"]]


@pytest.fixture
def two(faking: Fake, count_model: Path) -> Mapping[str, object]:
    """Two models, of which one has a file with a whole header."""
    return {**faking(), **faking(name="count", parallel=2), "models.count.path": str(count_model)}


async def test_its_client_finds_the_models(two: Mapping[str, object]) -> None:
    def use(client: ollama.Client) -> None:
        fake, count = client.list().models
        assert (fake.model, count.model) == ("fake", "count")
        assert count.details
        assert (count.details.family, count.details.quantization_level) == ("llama", "F16")
        assert count.modified_at
        shown = client.show("count:latest")
        assert shown.modelinfo
        assert shown.modelinfo["llama.context_length"] == 32768
        assert shown.capabilities == ["completion"]
        assert "messages" in (shown.template or "")
        assert client.ps().models == []
        with pytest.raises(ollama.ResponseError) as unknown:
            client.show("nope")
        assert unknown.value.status_code == 404
        with pytest.raises(ollama.ResponseError) as refused:
            client.pull("nope")
        assert refused.value.status_code == 501
        assert client.pull("count").status == "success"
        with pytest.raises(ollama.ResponseError):
            client.delete("count")

    async with running(two) as llamasup:
        with ollama.Client(host=llamasup.url) as client:
            await trio.to_thread.run_sync(use, client)
        assert await loads(llamasup) == [0, 0]


async def test_what_is_loaded_is_told_with_its_memory_and_the_time_that_it_has(
    two: Mapping[str, object],
) -> None:
    async with running({**two, "pool.idle_unload": "10m"}) as llamasup:
        await post(llamasup, "/api/generate", {"model": "count"})
        [model] = (await get(llamasup, "/api/ps"))["models"]
        shown = (await post(llamasup, "/api/show", {"model": "count"}))[1]
    assert (model["name"], model["size_vram"]) == ("count", 0)
    assert model["size"] > 0
    assert shown["parameters"] == f"num_ctx {model['context_length']}"
    left = datetime.fromisoformat(model["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=9) < left <= timedelta(minutes=10)


async def test_older_clients_name_a_model_otherwise(two: Mapping[str, object]) -> None:
    async with running(two) as llamasup:
        assert (await post(llamasup, "/api/show", {"name": "count"}))[0] == 200
        status, error = await post(llamasup, "/api/show", {})
        assert (status, "name a model" in error["error"]) == (400, True)
        status, error = await post(llamasup, "/api/show", [])
        assert (status, list(error)) == (400, ["error"])


async def test_a_model_that_sees_says_so(faking: Fake, tmp_path: Path, count_model: Path) -> None:
    projector = counting_model(tmp_path / "mmproj.gguf", up_to=3)
    config = {**faking(name="count", mmproj=str(projector)), "models.count.path": str(count_model)}
    async with running(config) as llamasup:
        _, shown = await post(llamasup, "/api/show", {"model": "count"})
    assert shown["capabilities"] == ["completion", "vision"]


@pytest.mark.parametrize("path", ["push", "create", "copy"])
async def test_what_operators_do_here_is_refused_with_what_to_do(faking: Fake, path: str) -> None:
    async with running(faking()) as llamasup:
        status, error = await post(llamasup, f"/api/{path}", {"model": "x"})
        assert (status, list(error)) == (501, ["error"])


async def test_its_clients_see_that_it_is_there(faking: Fake) -> None:
    async with running(faking()) as llamasup:
        async with llamasup.connect() as client:
            for method in ("HEAD", "GET"):
                await client.send(request(method, "/", headers={"Accept": "*/*"}))
                reply = await client.reply(to_head=method == "HEAD")
                assert reply.status == 200
                assert reply.headers["content-type"].startswith("text/plain")
        assert reply.body == b"Ollama is running"
        browser = await llamasup.ask("GET", "/", headers={"Accept": "text/html,*/*"})
        assert browser.status == 404
        assert (await get(llamasup, "/api/version"))["version"] == VERSION


async def test_a_key_finds_only_the_models_that_it_may_use(two: Mapping[str, object]) -> None:
    config = {**two, "keys.ann.key": "the-secret-of-ann-is-long", "keys.ann.models": ["fake"]}
    headers = {"Authorization": "Bearer the-secret-of-ann-is-long"}
    async with running(config) as llamasup:

        async def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
            reply = await llamasup.ask(method, path, body, headers)
            return reply.status, reply.json()

        assert (await llamasup.ask("GET", "/api/tags")).status == 401
        _, listed = await ask("GET", "/api/tags")
        assert [model["name"] for model in listed["models"]] == ["fake"]
        status, error = await ask("POST", "/api/show", {"model": "count"})
        assert (status, list(error)) == (403, ["error"])
        assert (await ask("POST", "/api/pull", {"model": "count"}))[0] == 501
        assert (await ask("POST", "/api/generate", {"model": "count"}))[0] == 403
        assert (await ask("POST", "/api/generate", {"model": "fake"}))[0] == 200
        _, loaded = await ask("GET", "/api/ps")
        assert [model["name"] for model in loaded["models"]] == ["fake"]


async def test_models_of_instances_elsewhere_are_found_and_answer(
    counting: Mapping[str, object], faking: Fake
) -> None:
    async with running(counting) as inner:
        here = {**faking(), "endpoints": [{"name": "there", "url": inner.url}]}
        async with running(here) as llamasup:

            async def names() -> list[str]:
                return [model["name"] for model in (await get(llamasup, "/api/tags"))["models"]]

            async def are_both_known() -> bool:
                return await names() == ["fake", "count"]

            await eventually(are_both_known)
            status, shown = await post(llamasup, "/api/show", {"model": "count"})
            assert (status, shown["capabilities"]) == (200, ["completion"])
            asked = {"model": "count", "prompt": "x", "options": {"num_predict": 3}}
            status, answer = await post(llamasup, "/api/generate", {**asked, "stream": False})
            assert (status, answer["response"]) == (200, " 0 1 2")
            assert (await post(llamasup, "/api/generate", {"model": "count"}))[0] == 200
            assert (await post(llamasup, "/api/chat", {"model": "count", "keep_alive": 0}))[
                0
            ] == 200

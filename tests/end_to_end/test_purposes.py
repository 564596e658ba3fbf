"""Models that embed or rank work without a flag, and others say what to configure for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness import chat, running
from tests.models.shapes import Shape, bert

CHAT = ("/v1/chat/completions", chat(3, stream=False))
EMBED = ("/v1/embeddings", {"input": "a"})
RERANK = ("/v1/rerank", {"query": "a", "documents": ["b", "c"]})


@pytest.fixture
def config(engine: str, count_model: Path, tmp_path: Path) -> dict[str, object]:
    """A model of each kind, known by its file alone."""

    def written(shape: Shape, name: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        return str(shape.write(folder))

    return {
        "engine.command": engine,
        "models.writes.path": str(count_model),
        "models.embeds.path": written(bert(2), "embeds"),
        "models.ranks.path": written(bert(4, judges=True), "ranks"),
        "models.embeds-anyhow.path": str(count_model),
        "models.embeds-anyhow.purpose": "embed",
        **{f"models.{name}.threads": 1 for name in ("writes", "embeds", "ranks", "embeds-anyhow")},
    }


async def test_devices_that_an_engine_cannot_have_are_told(config: dict[str, object]) -> None:
    wrong = {**config, "models.writes.devices": ["CUDA7"]}
    async with running(wrong) as llamasup:
        path, body = CHAT
        reply = await llamasup.ask("POST", path, {**body, "model": "writes"})
        assert reply.status == 503
        assert "its engine" in reply.error["message"]
        assert "devices" in reply.error["message"]


async def test_each_model_does_what_its_file_says_and_nothing_else(
    config: dict[str, object],
) -> None:
    async with running(config) as llamasup:

        async def asked(model: str, what: tuple[str, Any]) -> Any:
            path, body = what
            reply = await llamasup.ask("POST", path, {**body, "model": model})
            return reply.json() if reply.status == 200 else reply.error["code"]

        assert "choices" in await asked("writes", CHAT)
        assert [await asked("writes", what) for what in (EMBED, RERANK)] == ["model_unfit"] * 2
        for model in ("embeds", "embeds-anyhow"):
            [vector] = (await asked(model, EMBED))["data"]
            assert len(vector["embedding"]) > 1
            assert [await asked(model, what) for what in (CHAT, RERANK)] == ["model_unfit"] * 2
        assert len((await asked("ranks", RERANK))["results"]) == 2
        assert [await asked("ranks", what) for what in (CHAT, EMBED)] == ["model_unfit"] * 2

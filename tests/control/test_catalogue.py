"""Listings tell of the models that there are, from their headers alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import EMPTY_MODEL
from tests.harness import Journal, Llamasup, chat, counting_model, running

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing has all the time that it takes, however busy the machine is."""
    monkeypatch.setattr("llamasup.models.headers.READING", 10.0)
    monkeypatch.setattr("llamasup.models.headers.LISTING_PATIENCE", 20.0)


async def load(llamasup: Llamasup, model: str = "fake") -> None:
    reply = await llamasup.ask("POST", CHAT, chat(1, stream=False, model=model))
    assert reply.status == 200


async def listed(llamasup: Llamasup) -> list[Any]:
    """The entries of the listing."""
    entries: list[Any] = (await llamasup.ask("GET", "/v1/models")).json()["data"]
    return entries


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
async def test_models_are_listed_as_llama_servers_router_does(faking: Fake, path: str) -> None:
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
        "status": {"value": "loaded"},
        "source": "configured",
        "can_remove": False,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "context": 32768,
        "max_context": None,
        "context_length": 32768,
        "meta": {"n_ctx": 32768, "size": len(EMPTY_MODEL)},
    }
    assert broken["id"] == "broken"
    assert (broken["status"]["value"], broken["status"]["failed"]) == ("failed", True)
    assert failed.error["message"].startswith(broken["status"]["why"])


async def test_a_listing_tells_what_the_headers_tell_and_loads_nothing(
    faking: Fake, count_model: Path, journal: Journal
) -> None:
    config = faking(name="count", parallel=4) | {"models.count.path": str(count_model)}
    async with running(config) as llamasup:
        [count] = await listed(llamasup)
    assert not journal.entries()
    assert (count["context"], count["max_context"], count["context_length"]) == (None, 32768, 8192)
    assert count["meta"]["n_ctx_train"] == 32768
    assert count["meta"]["n_params"] > 0
    assert count["meta"]["size"] == count_model.stat().st_size
    assert "n_ctx" not in count["meta"]


async def test_what_operators_say_of_a_model_is_listed(faking: Fake) -> None:
    said = {"description": "It is one.", "owner": "me", "metadata": {"team": "blue"}}
    async with running({**faking(**said), "models.fake.name": "The One"}) as llamasup:
        [one] = await listed(llamasup)
    assert (one["name"], one["description"], one["owned_by"]) == ("The One", "It is one.", "me")
    assert one["metadata"] == {"team": "blue"}


async def test_what_is_unlisted_is_served_all_the_same(faking: Fake) -> None:
    async with running({**faking(), **faking(name="secret", unlisted=True)}) as llamasup:
        assert [model["id"] for model in await listed(llamasup)] == ["fake"]
        await load(llamasup, "secret")
        assert (await llamasup.ask("GET", "/v1/models/secret")).json()["id"] == "secret"


async def test_a_defective_file_is_listed_with_its_defect_unless_it_is_hidden(
    faking: Fake, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    counting_model(folder / "good.gguf", up_to=3)
    (folder / "cut.gguf").write_bytes((folder / "good.gguf").read_bytes()[:-1])
    (folder / "none.gguf").write_bytes(b"<html>")
    config = {
        **faking(),
        "models.gone.path": str(tmp_path / "gone.gguf"),
        "discover.folders": [str(folder)],
    }
    async with running(config) as llamasup:
        models = {model["id"]: model for model in await listed(llamasup)}
    assert models.keys() == {"fake", "gone", "cut", "good", "none"}
    defects = {name: model["defect"] for name, model in models.items() if "defect" in model}
    assert "it is cut off" in defects["cut"]
    assert "not with b'GGUF'" in defects["none"]
    assert defects["gone"] == "No such file or directory"
    assert models["cut"]["status"] == {"value": "failed", "failed": True, "why": defects["cut"]}
    async with running({**config, "discover.hide_defective": True}) as llamasup:
        assert [model["id"] for model in await listed(llamasup)] == ["fake", "gone", "good"]
        assert (await llamasup.ask("GET", "/v1/models/cut")).json()["defect"] == defects["cut"]


ANTHROPIC = {"anthropic-version": "2023-06-01"}


async def test_anthropics_clients_get_the_list_in_their_form(faking: Fake) -> None:
    config = {**faking(), **faking(name="other"), "models.other.name": "The Other"}
    async with running(config) as llamasup:
        listing = (await llamasup.ask("GET", "/v1/models?limit=1", headers=ANTHROPIC)).json()
        one = await llamasup.ask("GET", "/v1/models/other", headers=ANTHROPIC)
        none = await llamasup.ask("GET", "/v1/models/none", headers=ANTHROPIC)
    assert not listing["has_more"]
    assert (listing["first_id"], listing["last_id"]) == ("fake", "other")
    assert one.json() == listing["data"][1]
    assert one.json()["display_name"] == "The Other"
    assert one.json()["type"] == "model"
    assert one.json()["created_at"].endswith("Z")
    assert (none.status, none.json()["error"]["type"]) == (404, "not_found_error")


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

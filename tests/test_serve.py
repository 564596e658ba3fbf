"""What happens when llamasup opens; how it closes is in end_to_end/test_shutdown.py."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from llamasup.config.source import Source
from llamasup.errors import EngineUnusable, LlamasupError, OperatorError
from llamasup.serve import serve
from tests.harness import Journal, chat, eventually, running

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"


async def test_preloaded_models_are_loaded_without_a_request(faking: Fake) -> None:
    config = {**faking(), **faking(name="other"), "pool.preload": ["fake"]}
    async with running(config) as llamasup:

        async def is_loaded() -> bool:
            return (await llamasup.ask("GET", "/health")).json()["loaded_models"] == ["fake"]

        await eventually(is_loaded)


async def test_a_model_that_cannot_be_preloaded_does_not_keep_the_others_from_serving(
    faking: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    broken = faking("--fake-fail-load", "invalid magic characters", name="broken")
    async with running({**faking(), **broken, "pool.preload": ["broken"]}) as llamasup:
        await eventually(lambda: "broken could not be preloaded" in caplog.text)
        assert (await llamasup.ask("POST", CHAT, chat(1, model="fake"))).status == 200


async def test_an_engine_that_does_not_work_is_reported_at_the_start(
    faking: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = tmp_path / "llama-server"
    engine.write_text("#!/bin/sh\necho it broke\nexit 1\n")
    engine.chmod(0o755)
    async with running({**faking(), "engine.command": shlex.quote(str(engine))}) as llamasup:
        await eventually(lambda: "cannot be run: " in caplog.text)
        assert "it broke" in caplog.text
        assert (await llamasup.ask("GET", "/health")).status == 200


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"engine.command": "/nowhere/llama-server"}, EngineUnusable),
        ({"folders.run": "/dev/null/run"}, OperatorError),
        ({"server.listen": ["unix:/nowhere/x.sock"]}, OperatorError),
    ],
    ids=lambda value: "" if isinstance(value, type) else next(iter(value)),
)
async def test_what_cannot_be_served_is_told_before_anything_is_started(
    faking: Fake,
    journal: Journal,
    tmp_path: Path,
    change: dict[str, object],
    error: type[LlamasupError],
) -> None:
    flags = {
        **faking(),
        "server.listen": ["127.0.0.1:0"],
        "folders.run": str(tmp_path / "run"),
        "folders.cache": str(tmp_path / "cache"),
        "pool.preload": ["fake"],
        **change,
    }
    source = Source(None, {}, flags)
    with pytest.raises(error):
        await serve(source.load(), source, os.environ, lambda *_: pytest.fail("it serves"))
    assert journal.entries() == []


async def test_what_was_learned_lies_in_the_state_folder(faking: Fake, tmp_path: Path) -> None:
    async with running({**faking(), "folders.state": str(tmp_path / "state")}) as llamasup:
        assert (await llamasup.ask("POST", CHAT, chat(1))).status == 200
    assert (tmp_path / "state" / "state.json").exists()  # what its child held, seen at its end


async def test_a_model_that_is_nowhere_is_not_preloaded(
    faking: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"discover.folders": [str(tmp_path)], "pool.preload": ["nobody"], **faking()}
    async with running(config) as llamasup:
        await eventually(lambda: "nobody cannot be preloaded" in caplog.text)
        assert (await llamasup.ask("GET", "/health")).status == 200

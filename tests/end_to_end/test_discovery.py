"""Files become models while llamasup runs, and stop being models when they go."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import evolve

from tests.harness import FAKE, Journal, Llamasup, Reply, chat, counted, eventually, running
from tests.models.shapes import bert

CHAT = "/v1/chat/completions"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the models lie."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def faked(folder: Path, journal: Journal) -> Mapping[str, object]:
    """The fake engine serves what is in the folder."""
    return {
        "engine.command": FAKE,
        "engine.args": ["--fake-journal", str(journal.path)],
        "discover.folders": [str(folder)],
    }


@pytest.fixture
def real(folder: Path, engine: str) -> Mapping[str, object]:
    """A real engine serves what is in the folder."""
    return {
        "engine.command": engine,
        "engine.args": ["--threads", "1"],
        "discover.folders": [str(folder)],
    }


async def ask(llamasup: Llamasup, model: str) -> Reply:
    return await llamasup.ask("POST", CHAT, chat(3, model=model))


async def listed(llamasup: Llamasup) -> list[str]:
    models = (await llamasup.ask("GET", "/v1/models")).json()["data"]
    return sorted(model["id"] for model in models)


def argv_of(journal: Journal) -> list[str]:
    argv: list[str] = journal.entries("started")[-1]["argv"]
    return argv


async def test_a_file_that_comes_is_answered_for_and_one_that_goes_no_more(
    real: Mapping[str, object], folder: Path, count_model: Path
) -> None:
    async with running(real) as llamasup:

        async def answers() -> bool:
            return (await ask(llamasup, "Count")).text() == counted(3)

        assert await listed(llamasup) == []
        assert (await ask(llamasup, "count")).error["code"] == "model_not_found"
        shutil.copy(count_model, folder)
        await eventually(answers)
        assert await listed(llamasup) == ["count"]

        (folder / "count.gguf").unlink()
        assert await answers()  # its child has the file yet
        os.kill((await llamasup.model_status("count"))["child"]["pid"], signal.SIGKILL)

        async def is_unknown() -> bool:
            reply = await ask(llamasup, "count")
            assert reply.status in (503, 404), reply.body
            return reply.status == 404

        await eventually(is_unknown)
        assert await listed(llamasup) == []
        assert (await llamasup.status())["models"] == []


async def test_a_file_that_vanished_is_a_clear_503_and_then_unknown(
    real: Mapping[str, object], folder: Path, count_model: Path
) -> None:
    shutil.copy(count_model, folder)
    async with running(real) as llamasup:
        (folder / "count.gguf").unlink()
        reply = await ask(llamasup, "count")
        assert (reply.status, reply.error["code"]) == (503, "model_unavailable")
        assert str(folder / "count.gguf") in reply.error["message"]

        async def is_unknown() -> bool:
            return (await ask(llamasup, "count")).status == 404

        await eventually(is_unknown)


async def test_a_file_that_is_replaced_is_loaded_anew(
    real: Mapping[str, object], folder: Path, count_model: Path
) -> None:
    (folder / "count.gguf").write_bytes(b"no model at all")
    async with running(real) as llamasup:
        assert (await ask(llamasup, "count")).status == 503
        shutil.copy(count_model, folder / "count.part")
        (folder / "count.part").replace(folder / "count.gguf")
        assert (await ask(llamasup, "count")).text() == counted(3)


async def test_a_model_is_launched_with_its_projector(
    faked: Mapping[str, object], folder: Path, journal: Journal
) -> None:
    for name in ("seeing-Q4_0.gguf", "mmproj-F16.gguf"):
        (folder / name).touch()
    async with running(faked) as llamasup:
        assert (await ask(llamasup, "seeing-Q4_0")).status == 200
    argv = argv_of(journal)
    assert argv[argv.index("--model") + 1] == str(folder / "seeing-Q4_0.gguf")
    assert argv[argv.index("--mmproj") + 1] == str(folder / "mmproj-F16.gguf")


async def test_a_split_model_is_one_from_its_last_part_on(
    faked: Mapping[str, object], folder: Path, journal: Journal
) -> None:
    parts = [folder / "deep" / f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    parts[0].parent.mkdir()
    for part in parts[:2]:
        part.touch()
    async with running(faked) as llamasup:
        assert await listed(llamasup) == []
        parts[2].touch()

        async def is_listed() -> bool:
            return await listed(llamasup) == ["big"]

        await eventually(is_listed)
        assert (await ask(llamasup, "big")).status == 200
    argv = argv_of(journal)
    assert argv[argv.index("--model") + 1] == str(parts[0])


async def test_files_of_one_name_are_told_apart_from_each_other_and_from_what_is_configured(
    faked: Mapping[str, object], folder: Path, journal: Journal, tmp_path: Path
) -> None:
    for path in ("a/x.gguf", "b/x.gguf", "y.gguf"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    (tmp_path / "mine.gguf").touch()
    config = {**faked, "models.Y.path": str(tmp_path / "mine.gguf")}
    files = {
        "a/x": folder / "a/x.gguf",
        "b/x": folder / "b/x.gguf",
        "models/y": folder / "y.gguf",
        "y": tmp_path / "mine.gguf",
    }
    async with running(config) as llamasup:
        data = (await llamasup.ask("GET", "/v1/models")).json()["data"]
        assert {model["id"]: model["source"] for model in data} == {
            "Y": "configured",
            "a/x": "discovered",
            "b/x": "discovered",
            "models/y": "discovered",
        }
        for name, file in files.items():
            assert (await ask(llamasup, name)).status == 200
            argv = argv_of(journal)
            assert argv[argv.index("--model") + 1] == str(file)
        reply = await ask(llamasup, "x")
        assert '"a/x"' in reply.error["message"]
        assert '"b/x"' in reply.error["message"]


async def test_a_folder_may_come_later(
    faked: Mapping[str, object], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.rmdir()
    async with running(faked) as llamasup:
        assert await listed(llamasup) == []
        assert f"{folder} cannot be looked through for models" in caplog.text
        folder.mkdir()
        (folder / "x.gguf").touch()

        async def is_listed() -> bool:
            return await listed(llamasup) == ["x"]

        await eventually(is_listed)


async def test_models_that_embed_and_models_that_judge_are_served_as_such(
    folder: Path, real: Mapping[str, object]
) -> None:
    """Started like others, an engine would abort on the one, and not answer for the other."""
    bert().write(folder)
    evolve(bert(4, judges=True), name="judge").write(folder)
    async with running(real) as llamasup:
        question = {"model": "bert", "input": ["hello", "you"]}
        embedded = await llamasup.ask("POST", "/v1/embeddings", question)
        assert embedded.status == 200, embedded.body
        assert [len(entry["embedding"]) for entry in embedded.json()["data"]] == [32, 32]
        question = {"model": "judge", "query": "hello", "documents": ["you", "me"]}
        judged = await llamasup.ask("POST", "/v1/rerank", question)
        assert judged.status == 200, judged.body
        assert len(judged.json()["results"]) == 2

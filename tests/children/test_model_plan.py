"""What was learned counts under what it was learned of, and circumstances are seen to change."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
import trio

from llamasup.children.plan import Plan
from llamasup.memory.ladder import Learned, Rung
from llamasup.models.headers import stamp
from tests.harness import FAKE

Fake = Callable[..., Mapping[str, object]]
Planning = Callable[[Mapping[str, object]], Plan]

LEARNED = Learned(Rung(4096), at=1.0, free=2)


def engine_at(path: Path, version: str) -> str:
    """A program of that version at `path`. Written beside, then moved there."""
    draft = path.with_suffix(".new")
    draft.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec echo "version: {version}"\nexec {FAKE} "$@"\n'
    )
    draft.chmod(0o755)
    draft.replace(path)
    return str(path)


@pytest.fixture
def config(faking: Fake, tmp_path: Path) -> dict[str, object]:
    """A model whose engine can be replaced."""
    return {**faking(), "engine.command": engine_at(tmp_path / "llama-server", "1")}


async def test_what_was_learned_is_known_to_the_next_plan_of_the_same_model(
    config: dict[str, object], planning: Planning
) -> None:
    assert await planning(config).learned() is None
    await planning(config).learn(LEARNED)
    assert await planning(config).learned() == LEARNED


async def test_what_was_learned_of_another_file_does_not_count(
    config: dict[str, object], planning: Planning, tmp_path: Path
) -> None:
    plan = planning(config)
    await plan.learn(LEARNED)
    (tmp_path / "fake.gguf").write_text("a larger one")
    assert await plan.learned() is None


async def test_what_was_learned_of_another_engine_does_not_count(
    config: dict[str, object], planning: Planning, tmp_path: Path
) -> None:
    plan = planning(config)
    await plan.learn(LEARNED)
    engine_at(tmp_path / "llama-server", "2")
    assert await plan.learned() is None


async def test_an_engine_that_gives_no_answer_by_then_costs_what_was_learned_and_nothing_else(
    config: dict[str, object],
    planning: Planning,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planning(config)
    assert await plan.learned() is None
    monkeypatch.setattr("llamasup.engine.locate._PATIENCE", 0.2)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    silent.replace(tmp_path / "llama-server")
    await plan.learn(LEARNED)
    await plan.measured(LEARNED.rung, 1 << 20)


@pytest.mark.parametrize(
    "change",
    [
        {"engine.args": ["--no-mmap"]},
        {"models.fake.extra_args": ["--no-mmap"]},
        {"models.fake.parallel": 2},
        {"models.fake.mmproj": "/eyes.gguf"},
    ],
    ids=str,
)
async def test_what_was_learned_with_other_arguments_does_not_count(
    config: dict[str, object], planning: Planning, change: dict[str, object]
) -> None:
    await planning(config).learn(LEARNED)
    assert await planning({**config, **change}).learned() is None


async def test_a_model_whose_file_is_missing_is_learned_of_as_any_other(
    config: dict[str, object], planning: Planning, tmp_path: Path
) -> None:
    (tmp_path / "fake.gguf").unlink()
    await planning(config).learn(LEARNED)
    assert await planning(config).learned() == LEARNED


async def test_nothing_is_learned_with_an_engine_that_went_away(
    config: dict[str, object], planning: Planning, tmp_path: Path
) -> None:
    plan = planning(config)
    (tmp_path / "llama-server").unlink()
    await plan.learn(LEARNED)
    engine_at(tmp_path / "llama-server", "1")
    assert await plan.learned() is None


# --- circumstances ---


def touch(folder: Path) -> None:
    os.utime(folder / "fake.gguf", (1, 1))


def grow(folder: Path) -> None:
    (folder / "fake.gguf").write_text("a larger one")


def replace(folder: Path) -> None:
    (folder / "new").touch()
    (folder / "new").replace(folder / "fake.gguf")


def remove(folder: Path) -> None:
    (folder / "fake.gguf").unlink()


def replace_the_engine(folder: Path) -> None:
    engine_at(folder / "llama-server", "1")


def remove_the_engine(folder: Path) -> None:
    (folder / "llama-server").unlink()


@pytest.mark.parametrize(
    "change", [touch, grow, replace, remove, replace_the_engine, remove_the_engine]
)
async def test_circumstances_change_with_the_models_file_and_with_the_engine(
    config: dict[str, object],
    planning: Planning,
    tmp_path: Path,
    change: Callable[[Path], None],
) -> None:
    plan = planning(config)
    before = await plan.circumstances()
    assert await plan.circumstances() == before
    change(tmp_path)
    assert await plan.circumstances() != before


@pytest.mark.parametrize(
    ("settings", "file"),
    [
        ({"mmproj": "eyes.gguf"}, "eyes.gguf"),
        ({"path": "big-00001-of-00003.gguf"}, "big-00003-of-00003.gguf"),
        ({"extra_args": ["--lora", "voice.gguf"]}, "voice.gguf"),
        ({"extra_args": ["--lora", "one.gguf,voice.gguf"]}, "voice.gguf"),
        ({"extra_args": ["--lora-scaled", "voice.gguf:0.5,other.gguf:1"]}, "voice.gguf"),
        ({"extra_args": ["-md", "draft-00001-of-00002.gguf"]}, "draft-00002-of-00002.gguf"),
        ({"extra_args": ["--control-vector-scaled", "mood.gguf", "0.5"]}, "mood.gguf"),
    ],
)
async def test_circumstances_change_with_every_file_of_the_model(
    faking: Fake,
    planning: Planning,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    file: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    own = {f"models.fake.{key}": value for key, value in settings.items()}
    plan = planning({**faking(), **own})
    before = await plan.circumstances()
    assert before is not None
    (tmp_path / file).touch()
    assert await plan.circumstances() != before


async def test_circumstances_that_a_disk_does_not_tell_are_not_waited_for(
    faking: Fake, planning: Planning, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planning(faking())
    hangs = threading.Event()
    monkeypatch.setattr("llamasup.children.launcher.stamp", lambda files: hangs.wait())
    monkeypatch.setattr("llamasup.children.launcher._BRIEFLY", 0.1)
    with trio.fail_after(5):
        for _ in range(3):
            assert await plan.circumstances() is None
    hangs.set()


@pytest.mark.parametrize(
    "slow", ["llamasup.engine.known.stamp", "llamasup.children.launcher.stamp"]
)
async def test_a_disk_that_is_slow_to_tell_the_circumstances_is_waited_for_when_it_matters(
    config: dict[str, object], planning: Planning, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    await planning(config).learn(LEARNED)
    plan = planning(config)
    wakes_up = threading.Event()

    def slowly(files: Iterable[str | Path]) -> object:
        wakes_up.wait()
        return stamp(files)

    monkeypatch.setattr(slow, slowly)
    monkeypatch.setattr("llamasup.children.launcher._BRIEFLY", 0.1)
    with trio.fail_after(5):
        assert await plan.circumstances() is None
        later = threading.Timer(0.2, wakes_up.set)
        later.start()
        assert await plan.learned() == LEARNED
    later.join()


# --- what the configuration says ---


def test_a_model_is_preloaded_if_the_operator_says_so(faking: Fake, planning: Planning) -> None:
    assert not planning(faking()).preloaded
    assert planning({**faking(), "pool.preload": ["fake"]}).preloaded


async def test_a_child_is_planned_on_the_rung_that_is_wanted(
    faking: Fake, planning: Planning
) -> None:
    plan = planning({**faking(context_size=8192), "ladder.contexts": [4096]})
    assert await plan.rungs() == (Rung(8192), Rung(4096))
    words = list((await plan.child(plan.known_rungs[1])).launch.argv)
    assert words[words.index("--ctx-size") + 1] == "4096"


# --- what makes another child ---


@pytest.mark.parametrize(
    "change",
    [
        {"engine.args": ["--mlock"]},
        {"engine.env": {"X": "1"}},
        {"engine.command": "another"},
        {"engine.cache_ram": 0},
        {"engine.rpc": ["gpubox:1"]},
        {"models.fake.rpc": ["gpubox:1"]},
        {"models.fake.path": "/another.gguf"},
        {"models.fake.mmproj": "/eyes.gguf"},
        {"models.fake.context_size": 4096},
        {"models.fake.cache_type": "q8_0"},
        {"models.fake.parallel": 2},
        {"models.fake.gpu_layers": 1},
        {"models.fake.threads": 3},
        {"models.fake.batch_size": 64},
        {"models.fake.extra_args": []},
        {"models.fake.engine": "another"},
        {"models.fake.env": {"X": "1"}},
        {"models.fake.devices": ["CUDA1"]},
        {"models.fake.purpose": "embed"},
        {"models.fake.ladder": [{"context_size": 4096}]},
        {"ladder.contexts": [4096]},
    ],
    ids=str,
)
def test_what_a_child_is_started_with_makes_another_child(
    faking: Fake, planning: Planning, change: dict[str, object]
) -> None:
    before, after = planning(faking()), planning({**faking(), **change})
    assert not before.launches_like(after)
    assert not after.launches_like(before)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"models.fake.aliases": ["x"]},
        {"models.fake.idle_unload": 1},
        {"models.fake.unloadable": False},
        {"pool.preload": ["fake"]},
        {"pool.max_loaded_models": 1},
        {"ladder.climb_interval": 1},
        {"recovery.patience": 1},
        {"engine.load_timeout": 1},
        {"server.default_model": "fake"},
    ],
    ids=str,
)
def test_what_concerns_us_alone_makes_no_other_child(
    faking: Fake, planning: Planning, change: dict[str, object]
) -> None:
    assert planning(faking()).launches_like(planning({**faking(), **change}))


def test_contexts_that_a_models_own_ladder_overrules_make_no_other_child(
    faking: Fake, planning: Planning
) -> None:
    own = faking(ladder=[{"context_size": 4096}])
    assert planning(own).launches_like(planning({**own, "ladder.contexts": [2048]}))

"""What is configured wins, what lies in the folders comes beside it, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llamasup.config.schema import Config, Discover, ModelSettings
from llamasup.models.library import PATIENCE, Library, Look, names_and_aliases


def look(*folders: Path, **configured: ModelSettings) -> Look:
    return looked(Library(Config(models=configured, discover=Discover(folders))))


def looked(library: Library) -> Look:
    return trio.run(library.look)


def made(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"GGUF")


def files(models: Mapping[str, ModelSettings], folder: Path) -> dict[str, str]:
    return {name: str(model.path.relative_to(folder)) for name, model in models.items()}


def test_the_models_of_a_folder_are_offered_with_their_projectors(tmp_path: Path) -> None:
    made(tmp_path, "x.gguf", "eyes/y.gguf", "eyes/mmproj.gguf")
    assert look(tmp_path) == Look(
        models={
            "x": ModelSettings(path=tmp_path / "x.gguf"),
            "y": ModelSettings(path=tmp_path / "eyes/y.gguf", mmproj=tmp_path / "eyes/mmproj.gguf"),
        },
        found={tmp_path: 2},
        unreadable={},
    )


def test_a_configured_file_is_offered_under_its_configured_name_only(tmp_path: Path) -> None:
    made(tmp_path, "here/x.gguf", "here/y.gguf")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "here/x.gguf")
    mine = ModelSettings(path=tmp_path / "link.gguf", parallel=4)
    seen = look(tmp_path / "here", mine=mine)
    assert files(seen.models, tmp_path) == {"mine": "link.gguf", "y": "here/y.gguf"}
    assert seen.models["mine"] == mine
    assert seen.found == {tmp_path / "here": 2}


def test_configured_names_and_aliases_are_left_to_their_owners(tmp_path: Path) -> None:
    made(tmp_path, "m/x.gguf", "m/y.gguf", "mine.gguf")
    mine = ModelSettings(path=tmp_path / "mine.gguf", aliases=("Y",))
    assert files(look(tmp_path / "m", X=mine).models, tmp_path) == {
        "X": "mine.gguf",
        "m/x": "m/x.gguf",
        "m/y": "m/y.gguf",
    }


def test_a_configured_model_whose_file_is_missing_hides_no_other(tmp_path: Path) -> None:
    made(tmp_path, "x.gguf")
    (tmp_path / "nowhere.gguf").symlink_to(tmp_path / "gone")
    mine = ModelSettings(path=tmp_path / "gone.gguf")
    assert look(tmp_path, mine=mine).models.keys() == {"mine", "x"}


def test_a_folder_that_cannot_be_read_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    made(tmp_path, "here/x.gguf", "file.gguf")
    seen = look(tmp_path / "gone", tmp_path / "here", tmp_path / "file.gguf")
    assert seen.models.keys() == {"x"}
    assert seen.found == {tmp_path / "here": 1}
    assert seen.unreadable == {
        tmp_path / "gone": "No such file or directory",
        tmp_path / "file.gguf": "Not a directory",
    }


def test_a_disk_that_fails_takes_no_model_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "here/x.gguf")
    library = Library(Config(discover=Discover((tmp_path / "here",))))
    before = looked(library)

    with monkeypatch.context() as disks:
        disks.setattr("os.scandir", failing(errno.EIO))
        failed = looked(library)
    assert failed.models == before.models
    assert failed.unreadable == {tmp_path / "here": os.strerror(errno.EIO)}

    assert looked(library) == before
    shutil.rmtree(tmp_path / "here")
    assert not looked(library).models


def test_a_disk_that_fails_below_a_folder_takes_no_model_away_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "here/x.gguf", "here/below/y.gguf")
    config = Config(discover=Discover((tmp_path / "here",)))
    library = Library(config)
    before = looked(library)
    assert before.models.keys() == {"x", "y"}
    for name in ("scandir", "stat"):
        with monkeypatch.context() as disks:
            disks.setattr(f"os.{name}", failing_below(tmp_path / "here/below", name))
            assert looked(library).models == before.models
            assert looked(library.of(config)).models == before.models


def failing_below(folder: Path, name: str) -> Callable[..., Any]:
    call = getattr(os, name)

    def fail(path: Path | str, **more: Any) -> Any:
        if Path(path).is_relative_to(folder):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return call(path, **more)

    return fail


def failing(number: int) -> Callable[[Path], NoReturn]:
    def fail(_: Path) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A file system at `tmp_path / "hung"` that answers when this is set."""
    answers = threading.Event()
    for name in ("scandir", "stat"):
        monkeypatch.setattr(f"os.{name}", slow_below(tmp_path / "hung", name, answers))
    yield answers
    answers.set()


def slow_below(folder: Path, name: str, answers: threading.Event) -> Callable[..., Any]:
    call = getattr(os, name)

    def slow(path: Path | str, **more: Any) -> Any:
        if Path(path).is_relative_to(folder):
            answers.wait()
        return call(path, **more)

    return slow


async def test_a_disk_that_hangs_costs_a_thread_and_its_patience_once(
    tmp_path: Path, hanging: threading.Event, mock_clock: MockClock
) -> None:
    made(tmp_path, "hung/x.gguf", "here/y.gguf")
    folders = (tmp_path / "hung", tmp_path / "here")
    mine = ModelSettings(path=tmp_path / "hung/x.gguf")
    library = Library(Config(models={"mine": mine}, discover=Discover(folders)))
    before = threading.active_count()
    mock_clock.autojump_threshold = 0.1
    for why in (f"no answer within {PATIENCE:g} s", "it has not answered yet"):
        seen = await library.look()
        assert seen.models.keys() == {"mine", "y"}
        assert seen.unreadable == {tmp_path / "hung": why}
    began = trio.current_time()
    for _ in range(20):
        await library.of(Config(discover=Discover(folders))).look()
    assert trio.current_time() - began < PATIENCE
    assert threading.active_count() <= before + 3  # one in the folder, one at the file, one idles


async def test_what_a_slow_disk_says_too_late_is_known_to_a_later_look(
    tmp_path: Path, hanging: threading.Event, mock_clock: MockClock
) -> None:
    made(tmp_path, "hung/x.gguf")
    library = Library(Config(discover=Discover((tmp_path / "hung",))))
    mock_clock.autojump_threshold = 0.1
    assert not (await library.look()).models
    hanging.set()
    while not (seen := await library.look()).models:
        await trio.sleep(0.01)
    assert seen.models.keys() == {"x"}
    assert (await library.look()).unreadable == {}


def test_folders_that_overlap_offer_nothing_twice(tmp_path: Path) -> None:
    made(tmp_path, "a.gguf", "b/c.gguf")
    for folders in ([tmp_path, tmp_path / "b"], [tmp_path / "b", tmp_path]):
        seen = look(*folders)
        assert seen.models.keys() == {"a", "c"}
        assert seen.found == {tmp_path: 2, tmp_path / "b": 1}


WORDS = st.sampled_from(["a", "A", "b", "x", "model"])
PATHS = st.lists(WORDS, min_size=1, max_size=3).map("/".join)
NAMES = st.lists(PATHS, min_size=1, max_size=4, unique_by=str.casefold)


@given(on_disk=st.sets(PATHS, min_size=1, max_size=6), configured=PATHS, names=NAMES)
def test_every_file_is_offered_once_and_every_name_means_one_model(
    tmp_path_factory: pytest.TempPathFactory,
    on_disk: set[str],
    configured: str,
    names: list[str],
) -> None:
    folder = tmp_path_factory.getbasetemp() / "library"
    shutil.rmtree(folder, ignore_errors=True)
    made(folder, *(f"{path}.gguf" for path in on_disk))
    mine = ModelSettings(path=folder / f"{configured}.gguf", aliases=tuple(names[1:]))

    models = look(folder, **{names[0]: mine}).models

    assert models[names[0]] == mine
    offered = sorted(model.path for model in models.values())
    assert offered == sorted({folder / f"{path}.gguf" for path in {*on_disk, configured}})
    known = [name.casefold() for name in names_and_aliases(models)]
    assert len(known) == len(set(known))


def test_what_folders_hold_gets_the_context_and_the_slots_that_are_wished_for_all(
    tmp_path: Path,
) -> None:
    made(tmp_path, "x.gguf")
    discover = Discover((tmp_path,), context_size=8192, parallel=4)
    model = looked(Library(Config(discover=discover))).models["x"]
    assert (model.context_size, model.parallel) == (8192, 4)

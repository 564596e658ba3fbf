"""A run folder is ours alone, is explained if it cannot be, and is made anew if it is removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from llamasup.errors import OperatorError
from llamasup.processes.run_folder import default_base, own_run_folder
from tests.harness import (
    eventually,
    out_of_descriptors,
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our place among the temporary files, which nobody has taken."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder / f"llamasup-{os.getuid()}"


def test_the_run_folder_is_private_and_goes_with_its_llamasup(base: Path) -> None:
    with own_run_folder(base) as (folder, left):
        assert left == []
        assert folder.path.parent == base
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert base.stat().st_mode & 0o777 == 0o700
    assert not folder.path.exists()


def test_every_socket_has_a_path_of_its_own(base: Path) -> None:
    with own_run_folder(base) as (folder, _):
        paths = {folder.next_socket(), folder.next_socket(), folder.control_socket}
        assert len(paths) == 3
        assert all(path.suffix == ".sock" for path in paths)


@pytest.mark.parametrize("name", ["x" * 120, "é" * 45])
def test_a_path_too_long_for_a_socket_is_refused_with_its_key(base: Path, name: str) -> None:
    with (
        pytest.raises(OperatorError, match=r"too long .* folders\.run"),
        own_run_folder(base / name),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_refused_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    base = tmp_path / "file" / "run"
    with pytest.raises(OperatorError, match=r"Not a directory.*folders\.run"), own_run_folder(base):
        pass


def test_the_users_runtime_folder_is_the_base_if_it_can_be_written(
    tmp_path: Path, temporary: Path
) -> None:
    assert default_base({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "llamasup"
    assert default_base({"XDG_RUNTIME_DIR": str(tmp_path / "gone")}) == temporary
    assert default_base({}) == temporary
    assert temporary.stat().st_mode & 0o777 == 0o700


def open_to_others(place: Path) -> None:
    place.mkdir()
    place.chmod(0o755)


def link_to_a_private_folder(place: Path) -> None:
    private = place.with_name("private")
    private.mkdir(mode=0o700)
    place.symlink_to(private)


@pytest.mark.parametrize("occupy", [open_to_others, link_to_a_private_folder, Path.touch])
def test_a_place_among_temporary_files_that_is_not_ours_alone_is_refused_with_the_key(
    occupy: Callable[[Path], None], temporary: Path
) -> None:
    occupy(temporary)
    with pytest.raises(OperatorError, match=r"this user alone.*folders\.run"):
        default_base({})


def test_a_place_among_temporary_files_that_is_another_users_is_refused_with_the_key(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = os.getuid() + 1
    temporary.with_name(f"llamasup-{stranger}").mkdir(mode=0o700)
    monkeypatch.setattr("os.getuid", lambda: stranger)
    with pytest.raises(OperatorError, match=r"this user alone.*folders\.run"):
        default_base({})


def test_a_place_that_cannot_be_made_is_refused_with_the_key(temporary: Path) -> None:
    temporary.parent.rmdir()
    with pytest.raises(OperatorError, match=r"No such file.*folders\.run"):
        default_base({})


def test_a_base_that_others_may_write_is_refused(base: Path) -> None:
    base.mkdir()
    base.chmod(0o777)
    with (
        pytest.raises(OperatorError, match=r"everybody may write it.*folders\.run"),
        own_run_folder(base),
    ):
        pass
    base.chmod(0o755)  # as a service manager makes it
    with own_run_folder(base):
        pass


def test_two_of_the_same_pid_share_a_base(base: Path) -> None:
    """In two containers, each is process 1."""
    with own_run_folder(base) as (one, _), own_run_folder(base) as (other, left):
        assert one.path != other.path
        assert left == []
    assert list(base.iterdir()) == []


def test_the_mark_of_one_that_is_gone_is_removed_without_any_descriptor(
    base: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    with own_run_folder(base) as (folder, _):
        folder.mark(sleeper.pid)
        assert len(list(folder.path.iterdir())) == 1
        with out_of_descriptors():
            folder.unmark(sleeper.pid)
            folder.unmark(sleeper.pid)
        assert list(folder.path.iterdir()) == []


# --- a folder that goes while it is used ---


async def test_a_run_folder_that_is_removed_is_made_anew_with_the_marks_of_living_children(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llamasup.processes.run_folder._LOOK_AGAIN", 0.01)
    renewed: list[Path] = []
    with own_run_folder(base) as (folder, _):
        folder.mark(os.getpid())
        marks = sorted(mark.name for mark in folder.path.iterdir())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(folder.keep, lambda: renewed.append(folder.path))
            for times in (1, 2):
                shutil.rmtree(base)
                await eventually(lambda: len(renewed) == times)  # noqa: B023
                assert sorted(mark.name for mark in folder.path.iterdir()) == marks
            nursery.cancel_scope.cancel()
        assert caplog.text.count("was removed; it is") == 2
    assert not folder.path.exists()


async def test_where_there_can_be_no_run_folder_any_more_it_is_among_temporary_files(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("llamasup.processes.run_folder._LOOK_AGAIN", 0.01)
    monkeypatch.setattr("llamasup.processes.run_folder._private_base", lambda: elsewhere)
    renewed = trio.Event()
    with (
        tempfile.TemporaryDirectory(prefix="llamasup-test-") as temporary,
        own_run_folder(base / "runtime") as (folder, _),
    ):
        elsewhere = Path(temporary)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(folder.keep, renewed.set)
            shutil.rmtree(base / "runtime")
            (base / "runtime").write_text("nobody may make a folder here")
            await renewed.wait()
            nursery.cancel_scope.cancel()
        assert folder.path.parent == elsewhere
        assert folder.path.stat().st_mode & 0o777 == 0o700

"""Every GGUF file below a folder is found once, through links too; nothing else is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamasup.models.discover import each_once, models_in
from llamasup.models.scan import scan


def made(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"GGUF")


def seen(folder: Path) -> list[str]:
    return sorted(str(file.path) for file in scan(folder))


def test_files_are_found_in_nested_folders_with_their_size(tmp_path: Path) -> None:
    made(tmp_path, "a.gguf", "b/c/d.GGUF", "b/readme.md")
    assert seen(tmp_path) == ["a.gguf", "b/c/d.GGUF"]
    assert {file.size for file in scan(tmp_path)} == {4}


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    made(tmp_path, "here/a.gguf", "there/b.gguf")
    (tmp_path / "here" / "itself").symlink_to(tmp_path / "here")
    (tmp_path / "here" / "up").symlink_to(tmp_path)
    (tmp_path / "here" / "linked.gguf").symlink_to(tmp_path / "there" / "b.gguf")
    (tmp_path / "here" / "nowhere.gguf").symlink_to(tmp_path / "gone.gguf")
    (tmp_path / "here" / "circle.gguf").symlink_to(tmp_path / "here" / "circle.gguf")
    assert seen(tmp_path / "here") == ["a.gguf", "linked.gguf", "up/there/b.gguf"]


def test_the_cache_of_hugging_face_is_read_through_its_links(tmp_path: Path) -> None:
    blob = tmp_path / "models--o--n" / "blobs" / "f00"
    made(tmp_path, "models--o--n/blobs/f00")
    for revision in ("aa", "bb"):
        snapshot = tmp_path / "models--o--n" / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (snapshot / "x-Q4_0.gguf").symlink_to(os.path.relpath(blob, snapshot))
    assert models_in(scan(tmp_path)).keys() == {"o/n"}


def test_of_scans_that_overlap_each_file_is_had_once(tmp_path: Path) -> None:
    made(tmp_path, "a.gguf", "b/c.gguf")
    scans = [scan(tmp_path / "b"), scan(tmp_path), scan(tmp_path)]
    assert [str(file.path) for file in each_once(scans)] == ["c.gguf", "a.gguf"]


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path) -> None:
    made(tmp_path, "a.gguf")
    os.mkfifo(tmp_path / "fifo.gguf")
    (tmp_path / "linked.gguf").symlink_to(tmp_path / "fifo.gguf")
    (tmp_path / "device.gguf").symlink_to("/dev/zero")
    assert seen(tmp_path) == ["a.gguf"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "gone")

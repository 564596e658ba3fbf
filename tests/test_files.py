"""What is no regular file is not waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llamasup.files import digest_of, open_regular


def test_a_regular_file_is_read_through_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to("x")
    for name in ("x", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"x"


def test_nothing_may_be_named(tmp_path: Path) -> None:
    with open_regular(Path(os.devnull)) as file:
        assert file.read() == b""


def test_what_might_not_answer_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("fifo", "link", "socket", "/dev/zero"):
            with pytest.raises(OSError, match="it is no regular file"):
                open_regular(tmp_path / name)


def test_a_fifo_that_takes_the_place_of_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").touch()
    found = os.stat(tmp_path / "x")
    os.mkfifo(tmp_path / "fifo")
    stat = os.stat
    monkeypatch.setattr(
        os, "stat", lambda path, **more: found if path == tmp_path / "fifo" else stat(path, **more)
    )
    with pytest.raises(OSError, match="it is no regular file"):
        open_regular(tmp_path / "fifo")


def test_what_is_not_there_is_told_as_ever(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "x")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_a_digest_changes_with_the_content_and_not_with_the_times(tmp_path: Path) -> None:
    file = tmp_path / "x"
    assert digest_of(file) is None
    file.write_text("a")
    first = digest_of(file)
    os.utime(file, (1, 1))
    assert digest_of(file) == first is not None
    file.write_text("b")
    assert digest_of(file) != first

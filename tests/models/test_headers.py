"""A model's header is read once, and again when its files change; what cannot load is known."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from llamasup.models.headers import Headers, stamp
from tests.models.shapes import llama, qwen3


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose headers were really read."""
    from llamasup.models import headers

    read: list[Path] = []
    header_of = headers.header_of
    monkeypatch.setattr(headers, "header_of", lambda path: read.append(path) or header_of(path))
    return read


async def test_a_file_is_read_once_until_it_changes(tmp_path: Path, reads: list[Path]) -> None:
    path = qwen3().write(tmp_path)
    headers = Headers()
    for _ in range(3):
        reading = await headers.of(path)
    assert reading.header is not None
    assert reading.header.architecture == "qwen3"
    assert reading.size == path.stat().st_size
    assert reads == [path]
    os.utime(path, (1, 1))
    await headers.of(path)
    assert reads == [path, path]


async def test_all_parts_of_a_model_count(tmp_path: Path) -> None:
    parts = [tmp_path / f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    llama().write(tmp_path).rename(parts[0])
    qwen3().write(tmp_path).rename(parts[1])
    reading = await Headers().of(parts[0])
    assert reading.header is not None
    assert reading.header.architecture == "llama"
    assert len(reading.header.tensors) == len(llama().tensors) + len(qwen3().tensors)
    assert reading.size == sum(part.stat().st_size for part in parts)


async def test_a_part_that_comes_later_is_noticed(tmp_path: Path) -> None:
    parts = [tmp_path / f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    llama().write(tmp_path).rename(parts[0])
    headers = Headers()
    missing = await headers.of(parts[0])
    assert missing.defect == f"{parts[1]}: No such file or directory"
    qwen3().write(tmp_path).rename(parts[1])
    assert (await headers.of(parts[0])).defect == ""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "it is cut off: 0 bytes are not the whole header (before byte 0)"),
        (b"PK\x03\x04", "it begins with b'PK\\x03\\x04', not with b'GGUF' (before byte 4)"),
    ],
)
async def test_what_no_engine_can_load_is_a_defect(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    reading = await Headers().of(path)
    assert (reading.header, reading.defect) == (None, f"{path}: {why}")


async def test_what_could_not_be_read_for_want_of_something_is_read_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = qwen3().write(tmp_path)
    headers = Headers()
    with monkeypatch.context() as shortage:
        shortage.setattr("llamasup.models.headers.header_of", lacking)
        assert os.strerror(errno.EMFILE) in (await headers.of(path)).defect
    assert (await headers.of(path)).header is not None


def lacking(path: Path) -> NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))


async def test_a_download_that_broke_off_is_a_defect(tmp_path: Path) -> None:
    path = qwen3().write(tmp_path)
    os.truncate(path, path.stat().st_size // 2)
    assert "it is cut off" in (await Headers().of(path)).defect


async def test_what_only_engines_may_understand_is_none(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + (4).to_bytes(4, "little") + bytes(100))
    reading = await Headers().of(path)
    assert (reading.header, reading.size, reading.defect) == (None, 108, "")


def test_a_stamp_changes_with_each_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    stamps = [stamp([one, other])]
    for file in (one, other):
        file.touch()
        stamps.append(stamp([one, other]))
    os.utime(other, (1, 1))
    stamps.append(stamp([one, other]))
    assert len(set(map(str, stamps))) == len(stamps)

"""A model's header is read once, and again when its files change; what cannot load is known."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest
import trio

from llamasup.models.gguf import Header, header_of
from llamasup.models.headers import Headers, stamp
from tests.harness import counting_model
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


# --- a listing's moment ---


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose headers were read, in order."""
    names = list[str]()

    def noted(path: Path) -> Header:
        names.append(path.name)
        return header_of(path)

    monkeypatch.setattr("llamasup.models.headers.header_of", noted)
    return names


async def contexts(headers: Headers, *files: Path) -> Mapping[Path, int | None]:
    """The contexts that a listing tells of."""
    told = await headers.profiles(files)
    return {file: profile.trained_context for file, profile in told.items()}


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing has all the time that it takes, however busy the machine is."""
    monkeypatch.setattr("llamasup.models.headers.READING", 10.0)
    monkeypatch.setattr("llamasup.models.headers.LISTING_PATIENCE", 20.0)


@pytest.mark.usefixtures("unhurried")
async def test_a_listing_reads_a_header_once_until_its_file_is_replaced(
    tmp_path: Path, read: list[str]
) -> None:
    file = counting_model(tmp_path / "x.gguf", up_to=3, context=1024)
    headers = Headers()
    assert [await contexts(headers, file) for _ in range(2)] == [{file: 1024}] * 2
    assert read == ["x.gguf"]
    counting_model(tmp_path / "new", up_to=3, context=2048).replace(file)
    assert await contexts(headers, file) == {file: 2048}


@pytest.mark.usefixtures("unhurried")
async def test_a_listing_reads_no_header_that_was_read_whole(
    tmp_path: Path, read: list[str]
) -> None:
    file = counting_model(tmp_path / "x.gguf", up_to=3, context=1024)
    headers = Headers()
    await headers.of(file)
    assert await contexts(headers, file) == {file: 1024}
    assert read == ["x.gguf"]


@pytest.mark.usefixtures("unhurried")
async def test_a_listing_tells_what_is_no_model_and_does_not_read_it_again(
    tmp_path: Path, read: list[str]
) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"not GGUF")
    headers, files = Headers(), [file, tmp_path / "gone"]
    for _ in range(2):
        told = await headers.profiles(files)
        assert [told[file].defect for file in files] == [
            "it begins with b'not ', not with b'GGUF' (before byte 4)",
            "No such file or directory",
        ]
    assert read == ["x.gguf"]


@pytest.mark.usefixtures("unhurried")
async def test_a_listing_without_time_tells_only_what_is_known(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = counting_model(tmp_path / "known.gguf", up_to=3, context=1024)
    new = counting_model(tmp_path / "new.gguf", up_to=3, context=1024)
    headers = Headers()
    await contexts(headers, known)
    with monkeypatch.context() as hurried:
        hurried.setattr("llamasup.models.headers.READING", 0.0)
        assert await contexts(headers, known, new) == {known: 1024}
    assert await contexts(headers, known, new) == {known: 1024, new: 1024}
    assert read == ["known.gguf", "new.gguf"]


async def test_a_listing_believes_what_was_known_of_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = counting_model(tmp_path / "known.gguf", up_to=3, context=1024)
    headers, hangs = Headers(), threading.Event()
    monkeypatch.setattr("llamasup.models.headers.READING", 10.0)
    assert await contexts(headers, known) == {known: 1024}
    monkeypatch.setattr("llamasup.models.headers.stamp", lambda files: hangs.wait())
    monkeypatch.setattr("llamasup.models.headers.LISTING_PATIENCE", 0.1)
    with trio.fail_after(5):  # a fraction of 100 times our patience
        for _ in range(100):
            assert await contexts(headers, known) == {known: 1024}
    hangs.set()


@pytest.mark.usefixtures("unhurried")
async def test_a_listing_tells_the_facts_of_all_parts(tmp_path: Path) -> None:
    parts = [tmp_path / f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    llama().write(tmp_path).rename(parts[0])
    qwen3().write(tmp_path).rename(parts[1])
    os.utime(parts[0], (7, 7))
    headers = Headers()
    for _ in range(2):
        facts = (await headers.facts([parts[0]]))[parts[0]]
        assert (facts.architecture, facts.modified) == ("llama", 7)
        assert facts.size == sum(part.stat().st_size for part in parts)
        await headers.of(parts[0])


async def test_a_chat_template_is_told_if_it_can_be_read(tmp_path: Path) -> None:
    headers, file = Headers(), counting_model(tmp_path / "x.gguf", up_to=3)
    assert "messages" in await headers.chat_template(file)
    assert await headers.chat_template(tmp_path / "gone") == ""
    file.write_bytes(b"no model")
    assert await headers.chat_template(file) == ""

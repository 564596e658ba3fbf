"""What headers say is read once for each file, a moment at a time, and again when it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.models import contexts
from llamasup.models.contexts import TrainedContexts
from tests.harness import counting_model


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose headers were read, in order."""
    names: list[str] = []
    header_of = contexts.header_of

    def noted(path: Path) -> object:
        names.append(path.name)
        return header_of(path)

    monkeypatch.setattr(contexts, "header_of", noted)
    return names


def test_a_header_is_read_once_until_its_file_is_replaced(tmp_path: Path, read: list[str]) -> None:
    file = counting_model(tmp_path / "x.gguf", up_to=3, context=1024)
    trained = TrainedContexts()
    assert [trained.known([file], 10) for _ in range(2)] == [{file: 1024}] * 2
    assert read == ["x.gguf"]
    counting_model(tmp_path / "new", up_to=3, context=2048).replace(file)
    assert trained.known([file], 10) == {file: 2048}


def test_what_is_no_model_is_left_out_and_not_read_again(tmp_path: Path, read: list[str]) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF, not really")
    trained = TrainedContexts()
    assert [trained.known([file, tmp_path / "gone"], 10) for _ in range(2)] == [{}, {}]
    assert read == ["x.gguf", "gone"]


def test_without_time_only_what_is_known_is_told(tmp_path: Path, read: list[str]) -> None:
    known = counting_model(tmp_path / "known.gguf", up_to=3, context=1024)
    new = counting_model(tmp_path / "new.gguf", up_to=3, context=1024)
    trained = TrainedContexts()
    trained.known([known], 10)
    assert trained.known([known, new], 0) == {known: 1024}
    assert trained.known([known, new], 10) == {known: 1024, new: 1024}
    assert read == ["known.gguf", "new.gguf"]

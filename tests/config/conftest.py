"""A place to be an operator in."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty: files in it are named without a path, as an operator would."""
    monkeypatch.chdir(tmp_path)
    return tmp_path

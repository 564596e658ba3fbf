"""Files lie where the operator wants them, or else where the system does."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.config.folders import cache_folder, run_base, state_file
from llamasup.config.load import load


def test_folders_are_where_the_operator_wants_them_or_where_the_system_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("/c") / name)
    monkeypatch.setattr("platformdirs.user_state_path", lambda name: Path("/s") / name)
    default = load(None, {}, {})
    assert cache_folder(default) == Path("/c/llamasup")
    assert state_file(default) == Path("/s/llamasup/state.json")
    chosen = load(None, {}, {"folders.cache": "/mine/c", "folders.state": "/mine/s"})
    assert cache_folder(chosen) == Path("/mine/c")
    assert state_file(chosen) == Path("/mine/s/state.json")


def test_the_run_folder_is_where_the_operator_wants_it_or_among_the_users_own(
    tmp_path: Path,
) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert run_base(load(None, {}, {}), runtime) == tmp_path / "llamasup"
    assert run_base(load(None, {}, {"folders.run": "/mine"}), runtime) == Path("/mine")

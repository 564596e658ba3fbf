"""A source is loaded again, and tells whether its file says something else by now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamasup.config.problems import ConfigError
from llamasup.config.source import Source


def test_each_load_reads_the_file_again_and_lays_environment_and_flags_over_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "llamasup.toml"
    environ = {"LLAMASUP_POOL_TURN": "2s"}
    source = Source(file, environ, {"pool.max_queue": 3})
    for models in (1, 2):
        file.write_text(f"[pool]\nmax_loaded_models = {models}\nturn = '9s'\nmax_queue = 9\n")
        pool = source.load().pool
        assert (pool.max_loaded_models, pool.turn, pool.max_queue) == (models, 2, 3)


def test_the_digest_changes_with_what_the_file_says_and_not_with_its_time(tmp_path: Path) -> None:
    file = tmp_path / "llamasup.toml"
    source = Source(file, {}, {})
    assert source.digest() is None
    file.write_text("[pool]")
    source.load()
    assert source.seen is not None
    assert source.digest() == source.seen
    os.utime(file, (1, 1))
    assert source.digest() == source.seen
    stamp = file.stat()
    file.write_text("[logs]")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert source.digest() != source.seen


def test_without_a_file_there_is_nothing_that_could_change() -> None:
    source = Source(None, {}, {})
    source.load()
    assert (source.seen, source.digest()) == (None, None)


def test_a_folder_that_is_removed_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "llamasup.toml"
    file.write_text("[pool]\nmax_queue = 9\n")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    source = Source(file, {"LLAMASUP_FOLDERS_STATE": "state"}, {"models.x.path": "x.gguf"})
    before = source.load()
    here.rmdir()
    assert source.load() == before
    assert before.models["x"].path == here / "x.gguf"


def test_a_file_found_by_chance_is_believed_only_if_no_other_user_can_have_written_it(
    tmp_path: Path,
) -> None:
    """It names programs, which run as us: so git and ssh do it, too."""
    file = tmp_path / "llamasup.toml"
    file.write_text("[pool]\nmax_queue = 9\n")
    file.chmod(0o666)
    assert Source(file, {}, {}).load().pool.max_queue == 9
    come_upon = Source(file, {}, {}, named=False)
    with pytest.raises(ConfigError, match=r"everybody may write it.*llamasup serve") as refused:
        come_upon.load()
    assert str(file) in str(refused.value)
    file.chmod(0o644)
    assert come_upon.load().pool.max_queue == 9
    file.chmod(0o666)
    with pytest.raises(ConfigError):
        come_upon.load()


def test_a_file_that_was_emptied_is_no_wish_to_serve_nothing(tmp_path: Path) -> None:
    """A write to a full disk leaves it so."""
    file = tmp_path / "llamasup.toml"
    file.write_text("")
    source = Source(file, {}, {})
    source.load()
    file.write_text("[pool]\nmax_queue = 9\n")
    source.load()
    file.write_text("")
    for _ in range(2):
        with pytest.raises(ConfigError, match="emptied"):
            source.load()
    file.write_text("# nothing")
    assert source.load().pool.max_queue == 256

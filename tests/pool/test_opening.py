"""The pool opens with the models that there are, and with what was learned of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

from llamasup.children.launcher import Launcher
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.errors import OperatorError
from llamasup.events import Journal
from llamasup.models.headers import Headers
from llamasup.pool.opening import open_pool
from llamasup.processes.run_folder import own_run_folder

Fake = Callable[..., Mapping[str, object]]


@pytest.fixture
def launcher(faking: Fake, tmp_path: Path) -> Iterator[Launcher]:
    """Of one configured model, and one in a folder."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "found.gguf").write_bytes(b"GGUF")
    folders = {"folders.state": str(tmp_path), "discover.folders": [str(tmp_path / "models")]}
    in_effect = InEffect(load(None, {}, {**faking(), **folders}))
    with (
        TemporaryDirectory(prefix="llamasup-test-") as base,
        own_run_folder(Path(base)) as (run_folder, _),
    ):
        yield Launcher(in_effect, os.environ, tmp_path, run_folder)


async def test_every_model_that_there_is_has_a_keeper_and_none_is_loaded(
    launcher: Launcher,
) -> None:
    async with trio.open_nursery() as nursery:
        pool, roster = await open_pool(launcher.in_effect, launcher, Headers(), Journal(), nursery)
        assert pool.keepers.keys() == roster.look.models.keys() == {"fake", "found"}
        assert not any(keeper.child for keeper in pool.keepers.values())
        nursery.cancel_scope.cancel()


async def test_a_disk_that_does_not_say_what_was_learned_is_not_waited_for(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr("llamasup.pool.opening.State", lambda file: hangs.wait())
    monkeypatch.setattr("llamasup.pool.opening._PATIENCE", 0.1)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(5), pytest.raises(OperatorError, match=r"set folders\.state"):
            await open_pool(launcher.in_effect, launcher, Headers(), Journal(), nursery)
    hangs.set()

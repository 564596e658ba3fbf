"""An engine is heard on its memory and ended at once, whatever it does."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from llamasup.children.dry_run import DryRun, Unheard, run_dry
from llamasup.config.addresses import UnixAddress
from llamasup.errors import ModelUnavailable
from llamasup.processes.run_folder import RunFolder
from tests.harness import eventually, is_alive, out_of_descriptors

ROW = (
    '{"type":"fit_memory_breakdown","data":{"unit":"MiB","rows":'
    '[{"kind":"host","name":"Host","self":7}]}}'
)
Saying = Callable[[str], DryRun]


@pytest.fixture
def saying(run_folder: RunFolder, tmp_path: Path) -> Saying:
    """An engine that is a shell script. It writes down its pid, and has a socket."""
    pid, socket = shlex.quote(str(tmp_path / "pid")), run_folder.next_socket()
    socket.touch()

    def saying(script: str) -> DryRun:
        words = ["/bin/sh", "-c", f"echo $$ > {pid}; {script}"]
        return DryRun(words, os.environ, UnixAddress(str(socket)))

    return saying


def nothing_is_left(run_folder: RunFolder, tmp_path: Path) -> bool:
    pid = int((tmp_path / "pid").read_text())
    return not is_alive(pid) and list(run_folder.path.iterdir()) == []


async def test_its_answer_is_its_end(saying: Saying, run_folder: RunFolder, tmp_path: Path) -> None:
    script = f"echo loading; printf '%s\\n' {shlex.quote(ROW)}; sleep 600 & wait"
    with trio.fail_after(5):
        assert await run_dry(saying(script), run_folder) == {"host": 7 << 20}
    assert nothing_is_left(run_folder, tmp_path)


async def test_an_engine_that_ends_without_a_word_has_no_answer(
    saying: Saying, run_folder: RunFolder, tmp_path: Path
) -> None:
    assert await run_dry(saying("echo no such model; exit 1"), run_folder) is None
    assert nothing_is_left(run_folder, tmp_path)


async def test_an_engine_that_is_silent_is_given_up_for_this_time(
    saying: Saying, run_folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamasup.children.dry_run._PATIENCE", 0.3)
    with pytest.raises(Unheard, match="it said nothing for"):
        await run_dry(saying("sleep 600"), run_folder)
    assert nothing_is_left(run_folder, tmp_path)


async def test_an_engine_that_cannot_be_started_for_want_of_something_is_not_heard(
    saying: Saying, run_folder: RunFolder
) -> None:
    attempt = saying("echo words")
    with out_of_descriptors(), pytest.raises(Unheard, match="Too many open files"):
        await run_dry(attempt, run_folder)


async def test_an_engine_that_cannot_be_marked_is_not_heard_and_leaves_nothing_behind(
    saying: Saying, run_folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(pid: int) -> None:
        raise ModelUnavailable("the disk is full")

    monkeypatch.setattr(run_folder, "mark", is_full)
    with trio.fail_after(5), pytest.raises(Unheard, match="the disk is full"):
        await run_dry(saying("sleep 600"), run_folder)
    assert list(run_folder.path.iterdir()) == []


async def test_a_program_that_is_not_there_has_no_answer(run_folder: RunFolder) -> None:
    nowhere = DryRun(["/nowhere/llama-server"], {}, UnixAddress("/nowhere/x.sock"))
    assert await run_dry(nowhere, run_folder) is None


async def test_a_question_that_is_cancelled_leaves_no_process_behind(
    saying: Saying, run_folder: RunFolder, tmp_path: Path
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_dry, saying("sleep 600"), run_folder)
        await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        nursery.cancel_scope.cancel()
    assert nothing_is_left(run_folder, tmp_path)


async def test_it_is_marked_while_it_lives_so_that_the_next_llamasup_finds_it(
    saying: Saying, run_folder: RunFolder, tmp_path: Path
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_dry, saying("sleep 600"), run_folder)
        await eventually(lambda: [p for p in run_folder.path.iterdir() if p.suffix != ".sock"])
        nursery.cancel_scope.cancel()


async def test_its_stdin_is_a_pipe_that_ends_with_us(
    saying: Saying, run_folder: RunFolder, tmp_path: Path
) -> None:
    kind = tmp_path / "kind"
    script = f"stat -L -c %F /proc/self/fd/0 > {shlex.quote(str(kind))}; exit 0"
    assert await run_dry(saying(script), run_folder) is None
    assert kind.read_text() == "fifo\n"

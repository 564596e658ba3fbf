"""A program is heard to its end, or ended; one that cannot be ended holds nobody up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from llamasup.processes import asking
from tests.harness import eventually, is_alive


@pytest.fixture
def undying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """A program that no signal reaches, as none reaches one that hangs in a driver."""
    monkeypatch.setattr("llamasup.processes.process.Process.signal", lambda *_: None)
    monkeypatch.setattr(asking, "_DEATH_PATIENCE", 0.2)
    yield "/bin/sh", "-c", f"echo $$ > {tmp_path / 'pid'}; exec sleep 600"
    os.kill(pid_in(tmp_path), signal.SIGKILL)


def pid_in(folder: Path) -> int:
    return int((folder / "pid").read_text())


async def give_up(command: tuple[str, ...], pid_file: Path) -> None:
    """Run it, and lose patience when it runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking.run, command)
        await eventually(lambda: pid_file.exists() and pid_file.read_text())
        nursery.cancel_scope.cancel()


async def test_all_that_it_says_is_heard_and_how_it_ends() -> None:
    script = 'echo "$WORDS"; echo worse >&2; exit 6'
    outcome = await asking.run(["/bin/sh", "-c", script], {"WORDS": "words"})
    assert outcome == asking.Outcome(6, b"words\n", b"worse\n")


async def test_a_program_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        await asking.run(["/nowhere/tool"])


async def test_one_that_is_given_up_is_gone_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path / 'pid'}; wait"
    with trio.fail_after(5):
        await give_up(("/bin/sh", "-c", script), tmp_path / "pid")
    await eventually(lambda: not is_alive(pid_in(tmp_path)))


async def test_a_program_that_does_not_die_delays_no_task_and_is_not_started_again(
    undying: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(5):
        await give_up(undying, tmp_path / "pid")
        first = pid_in(tmp_path)
        assert is_alive(first)
        assert "does not die, and is left as it is" in caplog.text
        for _ in range(3):
            with pytest.raises(asking.StillRunning):
                await asking.run(undying)
    assert pid_in(tmp_path) == first


async def test_one_that_ends_after_all_is_reaped_and_may_be_started_again(
    undying: tuple[str, ...], tmp_path: Path
) -> None:
    await give_up(undying, tmp_path / "pid")
    first = pid_in(tmp_path)
    os.kill(first, signal.SIGKILL)

    async def is_reaped() -> bool:
        await asking.run(["true"])
        return not Path(f"/proc/{first}").exists()

    await eventually(is_reaped)
    (tmp_path / "pid").unlink()
    await give_up(undying, tmp_path / "pid")
    assert pid_in(tmp_path) != first

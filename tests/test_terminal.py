"""A closed terminal ends what was started from it; a hangup else is a wish to reload."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llamasup.terminal import Terminal
from tests.harness import PATIENCE, REPOSITORY

PROGRAM = textwrap.dedent(
    """
    import signal, sys, trio
    from pathlib import Path
    if sys.argv[2] == "nohup":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from llamasup.terminal import Terminal
    terminal = Terminal()
    said = Path(sys.argv[1])

    def say(word):
        said.write_text(said.read_text() + word + " ")

    async def main():
        with trio.open_signal_receiver(signal.SIGHUP) as hangups:
            say("ready")
            async for _ in terminal.reloads(hangups, lambda: say("stop")):
                say("reload")

    trio.run(main)
    """
)


def until_said(said: Path, words: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while said.read_text() != words:
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.005)


@pytest.mark.parametrize(("how", "then"), [("plainly", "stop"), ("nohup", "reload")])
def test_a_hangup_means_the_end_only_once_the_terminal_is_closed(
    how: str, then: str, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    said.touch()
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(REPOSITORY)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # we may be run by nohup, and pass that on
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, str(said), how])
    try:
        until_said(said, "ready ")
        os.kill(pid, signal.SIGHUP)
        until_said(said, "ready reload ")
        os.close(terminal)  # of which the kernel tells it
        until_said(said, f"ready reload {then} ")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_without_a_terminal_from_the_start_a_hangup_means_a_reload(tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.touch()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(said), "plainly"],
        cwd=REPOSITORY,
        start_new_session=True,
    ) as program:
        until_said(said, "ready ")
        program.send_signal(signal.SIGHUP)
        until_said(said, "ready reload ")
        program.kill()


async def test_while_it_is_there_every_hangup_is_passed_on() -> None:
    async def hangups() -> AsyncIterator[int]:
        yield 1
        yield 2

    def stop() -> None:
        pytest.fail("nobody has gone")

    assert [hangup async for hangup in Terminal().reloads(hangups(), stop)] == [1, 2]

"""A process is heard to its last word, and ended with all that it has started."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
import trio

from llamasup.processes.lifeline import Lifeline
from llamasup.processes.process import Process
from tests.harness import eventually, is_alive, out_of_descriptors


class Heard:
    """What a process wrote to one output."""

    def __init__(self) -> None:
        self.words = b""
        self.ended = trio.Event()

    def feed(self, data: bytes) -> None:
        self.words += data

    def end(self) -> None:
        self.ended.set()


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


async def test_both_outputs_are_heard_to_their_ends() -> None:
    process = await Process.start(shell('echo "$WORDS"; printf worse >&2; exit 6'), {"WORDS": "x"})
    stdout, stderr = Heard(), Heard()
    await process.hear(stdout, stderr)
    assert (stdout.words, stderr.words) == (b"x\n", b"worse")
    assert stdout.ended.is_set()
    assert await process.wait() == process.status == 6


async def test_an_output_that_is_not_wanted_is_not_there() -> None:
    process = await Process.start(shell("echo x; echo y >&2"), stderr=subprocess.DEVNULL)
    stdout = Heard()
    await process.hear(stdout)
    assert stdout.words == b"x\n"
    assert await process.wait() == 0


async def test_it_has_a_session_of_its_own_and_an_empty_stdin() -> None:
    process = await Process.start(shell("cat; exec sleep 600"))
    assert os.getsid(process.pid) == process.pid
    assert await process.kill()
    assert process.status == -signal.SIGKILL


async def test_a_process_that_cannot_be_started_leaves_nothing_open() -> None:
    before = open_files()
    with pytest.raises(FileNotFoundError):
        await Process.start(["/nowhere/tool"], lifeline=Lifeline())
    with out_of_descriptors(), pytest.raises(OSError, match="Too many open files"):
        await Process.start(["true"], lifeline=Lifeline())
    assert open_files() == before


async def test_what_is_heard_out_is_heard_through_a_cancellation() -> None:
    last = "trap 'printf %70000d 7; echo last words; exit 0' TERM; echo first; sleep 600 & wait"
    process = await Process.start(shell(last), lifeline=Lifeline())
    stdout, stderr = Heard(), Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.hear_out, stdout, stderr)
        await eventually(lambda: stdout.words)
        nursery.cancel_scope.cancel()
        await process.stop(10)
        await process.last_words()
    assert stdout.words.endswith(b"last words\n")
    assert process.status == 0


async def test_a_process_that_ignores_its_end_is_killed_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = open_files()
    process = await Process.start(
        shell("trap '' TERM; echo deaf; while :; do sleep 0.01; done"),
        lifeline=Lifeline(),
        name="engine",
    )
    stdout = Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.hear_out, stdout, Heard())
        await eventually(lambda: stdout.words)
        await process.stop(0.1)
        await process.last_words()
    assert process.status == -signal.SIGKILL
    assert f"engine[{process.pid}]: still there 0.1 s after SIGTERM" in caplog.text
    assert open_files() == before


async def test_the_end_of_its_stdin_is_enough_to_end_it() -> None:
    script = "trap '' TERM; echo deaf; cat; exit 7"
    process = await Process.start(shell(script), lifeline=Lifeline())
    stdout = Heard()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.hear_out, stdout, Heard())
            await eventually(lambda: stdout.words)
            await process.stop(60)
            await process.last_words()
    assert process.status == 7


async def test_what_holds_a_pipe_of_a_process_that_has_ended_is_killed() -> None:
    process = await Process.start(shell("sleep 600 & echo $!"))
    stdout = Heard()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.hear_out, stdout, Heard())
            await process.wait()
            await process.last_words()
    await eventually(lambda: not is_alive(int(stdout.words)))


async def test_one_that_is_killed_is_gone_also_if_that_is_cancelled() -> None:
    process = await Process.start(shell("exec sleep 600"), lifeline=Lifeline())
    with trio.move_on_after(0):
        assert await process.kill()
    assert not is_alive(process.pid)


async def test_one_that_does_not_die_is_told_from_one_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = await Process.start(shell("exec sleep 600"))
    with monkeypatch.context() as driver:
        driver.setattr(Process, "signal", lambda *_: None)
        assert not await process.kill(patience=0.1)
    assert await process.kill()


async def test_a_group_that_may_not_be_signalled_any_more_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of_zombies(pid: int, number: int) -> None:
        raise PermissionError

    process = await Process.start(["true"])
    with monkeypatch.context() as macos:
        macos.setattr(os, "killpg", of_zombies)
        process.signal(signal.SIGTERM)
    await process.wait()
    process.signal(signal.SIGTERM)

"""The follower loads what is written when it has settled, and complains once about each text.

How a configuration takes effect is in end_to_end/test_reload.py.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.config.schema import Config
from llamasup.config.source import Source
from llamasup.errors import OperatorError
from llamasup.events import Journal
from llamasup.narrator import HEARD, narrate
from llamasup.reload import PAUSE, Follower
from llamasup.running import Running
from llamasup.systemd import Notifier


@define
class Adopter:
    """Takes note of every configuration, unless it is told to refuse."""

    adopted: list[int] = field(factory=list)
    refuses: bool = False
    fails: bool = False

    async def change(self, made: Callable[[Config], Config]) -> None:
        if self.refuses:
            raise OperatorError("the address is in use")
        if self.fails:
            raise RuntimeError("nobody thought of this")
        self.adopted.append(made(Config()).pool.max_queue)


@define
class Stage:
    file: Path
    clock: MockClock
    hangups: trio.MemorySendChannel[int]
    adopter: Adopter = field(factory=Adopter)

    def write(self, max_queue: int) -> None:
        self.file.write_text(f"[pool]\nmax_queue = {max_queue}\n")

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.jump(PAUSE)
            # A look takes place in a thread.
            for _ in range(3):
                await wait_all_tasks_blocked(0.02)


@asynccontextmanager
async def following(tmp_path: Path, clock: MockClock) -> AsyncIterator[Stage]:
    send, receive = trio.open_memory_channel[int](1)
    stage = Stage(tmp_path / "llamasup.toml", clock, send)
    stage.write(1)
    source = Source(stage.file, {}, {})
    source.load()
    journal = Journal()
    follower = Follower(source, receive, Notifier({}), journal)
    with journal.heard_by(narrate, *HEARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.follow, cast(Running, stage.adopter))
            await wait_all_tasks_blocked()
            yield stage
            nursery.cancel_scope.cancel()


async def test_a_change_is_loaded_when_it_has_settled(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with following(tmp_path, mock_clock) as stage:
        await stage.look(2)
        for step in (2, 3, 4):
            stage.write(step)
            await stage.look()
            assert stage.adopter.adopted == []
        await stage.look(3)
        assert stage.adopter.adopted == [4]


async def test_a_file_that_is_gone_for_a_moment_is_no_change(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path, mock_clock) as stage:
        stage.file.unlink()
        await stage.look()
        stage.write(1)
        await stage.look(3)
        assert stage.adopter.adopted == []
        assert caplog.text == ""


async def test_each_bad_text_is_told_once(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path, mock_clock) as stage:
        for text in ("[pool", "[pool]\nmax_queue = -1\nturm = 1\n"):
            stage.file.write_text(text)
            await stage.look(4)
        assert {record.levelname for record in caplog.records} == {"ERROR"}
        assert caplog.text.count("stays as it was") == 2
        assert "pool.max_queue" in caplog.text
        assert "pool.turm" in caplog.text
        stage.write(5)
        await stage.look(2)
        assert stage.adopter.adopted == [5]


async def test_a_fifo_in_the_place_of_the_file_is_told_and_what_comes_after_it_is_followed(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path, mock_clock) as stage:
        stage.file.unlink()
        os.mkfifo(stage.file)
        await stage.look(4)
        assert stage.adopter.adopted == []
        stage.file.unlink()
        stage.write(5)
        await stage.look(2)
        assert stage.adopter.adopted == [5]


async def test_what_was_refused_is_not_tried_again_before_it_is_changed(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path, mock_clock) as stage:
        stage.adopter.refuses = True
        stage.write(2)
        await stage.look(4)
        assert caplog.text.count("the address is in use") == 1
        stage.adopter.refuses = False
        await stage.look(3)
        assert stage.adopter.adopted == []
        stage.write(3)
        await stage.look(2)
        assert stage.adopter.adopted == [3]


async def test_a_hangup_loads_it_changed_or_not_and_tells_again_what_is_wrong(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path, mock_clock) as stage:
        for expected in (1, 2):
            await stage.hangups.send(1)
            await stage.look(0)
            while len(stage.adopter.adopted) < expected:
                await wait_all_tasks_blocked(0.01)
        stage.adopter.refuses = True
        for expected in (1, 2):
            await stage.hangups.send(1)
            while caplog.text.count("the address is in use") < expected:
                await wait_all_tasks_blocked(0.01)
    assert stage.adopter.adopted == [1, 1]


async def test_a_mistake_of_ours_is_logged_and_the_next_change_is_followed(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path, mock_clock) as stage:
        stage.adopter.fails = True
        stage.write(2)
        await stage.look(3)
        assert "nobody thought of this" in caplog.text
        stage.adopter.fails = False
        stage.write(3)
        await stage.look(3)
        assert stage.adopter.adopted == [3]

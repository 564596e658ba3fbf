"""The engine is looked at when it matters, and asked again only when its program was replaced."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.engine.known import KnownEngine
from llamasup.engine.locate import Program, locate
from llamasup.errors import EngineUnusable, ModelUnavailable
from llamasup.memory.machine import ThisMachine
from llamasup.models.glances import one_glance
from tests.harness import script

Knowing = Callable[[str], KnownEngine]
HELP = 'echo "--model FNAME --host HOST"'


@pytest.fixture
def knowing(tmp_path: Path) -> Knowing:
    def knowing(command: str) -> KnownEngine:
        config = load(None, {}, {"engine.command": command})
        return KnownEngine(InEffect(config), os.environ, tmp_path)

    return knowing


@pytest.fixture
def located(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which an engine was looked for."""
    threads = list[int]()

    def locating(*where: object) -> Program:
        threads.append(threading.get_ident())
        return locate(*where)  # type: ignore[arg-type]

    monkeypatch.setattr("llamasup.engine.known.locate", locating)
    return threads


async def test_the_engine_is_asked_again_only_when_its_program_was_replaced(
    knowing: Knowing, tmp_path: Path
) -> None:
    path, asked = tmp_path / "llama-server", tmp_path / "asked"
    count = f'echo "$1" >> {shlex.quote(str(asked))}'
    help_text = 'echo "--model FNAME --host HOST"'
    known = knowing(script(path, count, help_text))
    assert known.last is None
    assert await known.now() is await known.now()
    assert sorted(asked.read_text().split()) == ["--help", "--version"]

    script(path, count, '[ "$1" = --version ] && echo "version: 2"', help_text)
    assert (await known.now()).version == "version: 2"
    assert len(asked.read_text().split()) == 4

    script(path, "echo it broke", "exit 1")
    with pytest.raises(EngineUnusable, match="it broke"):
        await known.now()


async def test_many_tasks_that_want_the_engine_at_once_ask_it_once(
    knowing: Knowing, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    count = f'echo "$1" >> {shlex.quote(str(asked))}'
    engine = script(tmp_path / "llama-server", count, 'echo "--model FNAME --host HOST"')
    known = knowing(engine)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(known.now)
    assert len(asked.read_text().split()) == 2


async def test_the_engine_is_asked_for_its_devices_out_of_child_mode(
    knowing: Knowing, engine: str
) -> None:
    """In which llama-server tells them where nobody listens."""
    if listing := await knowing(engine).listing(()):
        answer = await ThisMachine().run(*listing.command, environment=listing.environment)
        assert listing.devices_in(answer) is not None


async def test_within_a_glance_the_engine_is_located_once_and_never_on_the_loop(
    knowing: Knowing, located: list[int], tmp_path: Path
) -> None:
    known = knowing(script(tmp_path / "llama-server", HELP))
    with one_glance():
        engines = {await known.now() for _ in range(100)}
        for _ in range(100):
            await known.listing(())
    assert (len(engines), len(located)) == (1, 1)
    await known.now()
    assert len(located) == 2
    assert threading.get_ident() not in located


async def test_a_disk_that_hangs_is_waited_for_once_and_the_engine_is_known_again_afterwards(
    knowing: Knowing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = knowing(script(tmp_path / "llama-server", HELP))
    engine = await known.now()
    hangs = threading.Event()

    def locating(*where: object) -> Program:
        hangs.wait()
        return locate(*where)  # type: ignore[arg-type]

    monkeypatch.setattr("llamasup.engine.known.locate", locating)
    monkeypatch.setattr("llamasup.engine.known.PATIENCE", 0.2)
    try:
        with trio.fail_after(5):  # half of 50 times our patience
            for _ in range(50):
                with pytest.raises(ModelUnavailable, match="the engine cannot be looked for"):
                    await known.now()
        assert known.last is engine
    finally:
        hangs.set()
    with trio.fail_after(5):
        while True:
            try:
                assert await known.now() is engine
                break
            except ModelUnavailable:
                await trio.sleep(0.01)


async def test_tasks_that_come_during_a_look_share_the_next_one(
    knowing: Knowing, located: list[int], tmp_path: Path
) -> None:
    known = knowing(script(tmp_path / "llama-server", HELP))
    await known.now()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(known.now)
    assert len(located) <= 3

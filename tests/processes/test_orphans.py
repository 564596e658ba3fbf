"""No child outlives its llamasup, and nobody else's is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from llamasup.config.addresses import TcpAddress
from llamasup.processes.identity import Identity
from llamasup.processes.orphans import sweep
from llamasup.processes.run_folder import own_run_folder
from tests.harness import (
    Client,
    Journal,
    chat,
    eventually,
    is_alive,
    request,
    running,
)

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"
DEAD = "1"
"""The name of a folder that no llamasup holds."""


@pytest.fixture
def deaf() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ignores SIGTERM."""
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    argv = [sys.executable, "-c", f"{script}; time.sleep(60)"]
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def marked(base: Path, *names: str) -> Path:
    """The folder of a llamasup that died, with these files in it."""
    folder = base / DEAD
    folder.mkdir(mode=0o700, parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def folders(base: Path) -> list[str]:
    return [folder.name for folder in base.iterdir()]


def mark_of(process: Identity | None) -> str:
    assert process is not None
    return process.mark


# --- what the dead left ---


def test_a_living_child_of_a_dead_llamasup_is_found_and_its_folder_removed(
    base: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    child = Identity.of(sleeper.pid)
    dead = marked(base, mark_of(child), "1.sock", "control.sock")
    with own_run_folder(base) as (_, left):
        assert left == [child]
    assert not dead.exists()


def test_a_process_that_only_inherited_the_pid_is_not_taken_for_the_child(
    base: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    dead = marked(base, f"child-{sleeper.pid}-1")
    with own_run_folder(base) as (_, left):
        assert left == []
    assert not dead.exists()


@pytest.mark.parametrize("mark", ["child-", "child-x-1", "child-12", "child--1-1", "child-²-1"])
def test_a_mark_without_a_process_does_no_harm(base: Path, mark: str) -> None:
    marked(base, mark)
    with own_run_folder(base) as (_, left):
        assert left == []


def test_another_users_mark_ends_no_process(
    base: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        monkeypatch.setattr("llamasup.processes.run_folder.why_not_private", lambda _: "")
    process = Identity.of(sleeper.pid)
    assert process is not None
    folder = marked(base, f"child-{process.pid}-{process.started}")
    if os.geteuid() == 0:
        for path in folder.iterdir():
            os.chown(path, 65534, 65534)
    with own_run_folder(base) as (_, left):
        assert left == []


def test_files_and_folders_of_others_in_the_base_are_left_alone(base: Path) -> None:
    notes = base / "notes" / "keep.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    (base / "file").write_text("mine")
    (base / "123").write_text("mine")
    (base / "124").symlink_to(notes.parent)
    numbered = marked(base) / "keep.txt"
    numbered.write_text("mine")
    with own_run_folder(base) as (_, left):
        assert left == []
    for file in (notes, base / "file", base / "123", numbered):
        assert file.read_text() == "mine"
    assert (base / "124").is_symlink()


async def test_a_stubborn_orphan_is_killed(deaf: subprocess.Popen[bytes]) -> None:
    orphan = Identity.of(deaf.pid)
    assert orphan is not None
    with trio.fail_after(10):
        await sweep([orphan])
    assert not orphan.alive()


async def test_an_orphan_that_ends_by_itself_in_time_is_left_to_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with subprocess.Popen(["sleep", "0.3"]) as finishing:
        orphan = Identity.of(finishing.pid)
        assert orphan is not None
        await sweep([orphan], patience=20)
        assert not orphan.alive()
        assert finishing.wait() == 0
    assert "ending process" not in caplog.text


async def test_an_orphan_that_does_not_end_by_itself_in_time_is_ended(
    sleeper: subprocess.Popen[bytes],
) -> None:
    orphan = Identity.of(sleeper.pid)
    assert orphan is not None
    await sweep([orphan], patience=0.1)
    assert sleeper.wait() == -signal.SIGTERM


def test_orphans_are_known_to_the_next_one_also_if_they_were_not_ended_yet(
    base: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    orphan = Identity.of(sleeper.pid)
    assert orphan is not None
    with own_run_folder(base) as (dead, _):
        dead.mark(sleeper.pid)
        remains = shutil.copytree(dead.path, base / "1")
    assert [mark.name for mark in remains.glob("child-*")]
    with own_run_folder(base) as (killed_at_once, left):
        assert left == [orphan]
        assert [mark.name for mark in killed_at_once.path.glob("child-*")] == [
            f"child-{orphan.pid}-{orphan.started}"
        ]


# --- a llamasup that is killed ---


class Subprocess:
    """`llamasup serve` as a process of its own."""

    def __init__(self, process: subprocess.Popen[str], address: TcpAddress, base: Path) -> None:
        self.process = process
        self.address = address
        self.folder = base / str(process.pid)

    def children(self) -> list[int]:
        return [int(mark.name.split("-")[1]) for mark in self.folder.glob("child-*")]

    def kill(self) -> None:
        """As `kill -9` does it: nothing of its own is run any more."""
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(config: Mapping[str, object], base: Path) -> Iterator[Subprocess]:
    file = base.parent / f"llamasup-{len(list(base.parent.iterdir()))}.toml"
    keys = {
        "server.listen": ["127.0.0.1:0"],
        "folders.run": str(base),
        "folders.cache": str(base.parent / "cache"),
        "folders.state": str(base.parent / "state"),
        **config,
    }
    # A JSON value is a TOML value, too, as far as texts, numbers and lists go.
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
    with subprocess.Popen(
        [sys.executable, "-m", "llamasup", "serve", str(file)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", line):
                    break
            else:
                raise AssertionError("llamasup did not start")
            yield Subprocess(process, TcpAddress("127.0.0.1", int(found[1])), base)
        finally:
            process.kill()


async def ask(address: TcpAddress) -> None:
    async with Client(address) as client:
        await client.send(request("POST", CHAT, chat(1, stream=False)))
        assert (await client.reply()).status == 200


async def orphaned_while_idle(config: Mapping[str, object], base: Path) -> int:
    """Kill a llamasup at rest; the pid of its child."""
    with serving(config, base) as llamasup:
        await ask(llamasup.address)
        [pid] = llamasup.children()
        assert is_alive(pid)
        llamasup.kill()
    return pid


async def orphaned_while_streaming(config: Mapping[str, object], base: Path) -> int:
    with serving(config, base) as llamasup:
        async with Client(llamasup.address) as client:
            await client.send(request("POST", CHAT, chat(3000)))
            await client.read_until(b" 1")
            [pid] = llamasup.children()
            llamasup.kill()
    return pid


async def orphaned_while_loading(config: Mapping[str, object], base: Path) -> int:
    with serving(config, base) as llamasup:
        async with Client(llamasup.address) as client:
            await client.send(request("POST", CHAT, chat(3)))
            await eventually(llamasup.children)
            [pid] = llamasup.children()
            llamasup.kill()
    return pid


Orphaned = Callable[[Mapping[str, object], Path], Awaitable[int]]
at_any_time = pytest.mark.parametrize(
    "orphaned", [orphaned_while_idle, orphaned_while_streaming, orphaned_while_loading]
)


@at_any_time
async def test_a_real_engine_does_not_outlive_a_llamasup_that_is_killed(
    orphaned: Orphaned, counting: dict[str, object], base: Path
) -> None:
    pid = await orphaned(counting, base)
    await eventually(lambda: not is_alive(pid), within=10)


async def test_an_engine_in_a_long_load_does_not_outlive_a_llamasup_that_is_killed(
    faking: Fake, base: Path
) -> None:
    pid = await orphaned_while_loading(faking("--fake-load-seconds", "60"), base)
    await eventually(lambda: not is_alive(pid), within=10)


async def test_an_engine_that_stays_behind_is_ended_when_the_next_llamasup_starts(
    faking: Fake, base: Path, journal: Journal
) -> None:
    pid = await orphaned_while_idle(faking("--fake-ignore-stdin"), base)
    assert is_alive(pid)
    async with running({**faking(), "folders.run": str(base)}):
        assert not is_alive(pid)
        assert folders(base) == [str(os.getpid())]
    assert journal.entries("signal")[0]["pid"] == pid


async def test_two_llamasups_side_by_side_leave_each_others_children_alone(
    faking: Fake, base: Path
) -> None:
    with serving(faking(), base) as other:
        await ask(other.address)
        [pid] = other.children()
        async with running({**faking(), "folders.run": str(base)}) as llamasup:
            assert (await llamasup.ask("POST", CHAT, chat(1, stream=False))).status == 200
        assert is_alive(pid)
        await ask(other.address)
        assert other.children() == [pid]

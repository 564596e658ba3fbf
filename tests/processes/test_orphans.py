"""No child outlives its llamasup, nobody else's is touched, and a bad run folder is explained."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from llamasup.config.addresses import TcpAddress
from llamasup.errors import OperatorError
from llamasup.processes.orphans import Process, default_base, own_run_folder, sweep
from tests.harness import (
    Client,
    Journal,
    chat,
    eventually,
    is_alive,
    oddly_named,
    out_of_descriptors,
    request,
    running,
)

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"
DEAD = "1"
"""The name of a folder that no llamasup holds."""


@pytest.fixture
def base() -> Iterator[Path]:
    # pytest's own folders have names too long for a socket.
    with tempfile.TemporaryDirectory(prefix="llamasup-test-") as folder:
        yield Path(folder) / "run"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our place among the temporary files, which nobody has taken."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder / f"llamasup-{os.getuid()}"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process as children are: in a session of its own."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


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


def mark_of(process: Process | None) -> str:
    assert process is not None
    return f"child-{process.pid}-{process.started}"


# --- the folder ---


def test_the_run_folder_is_private_and_goes_with_its_llamasup(base: Path) -> None:
    with own_run_folder(base) as (folder, left):
        assert left == []
        assert folder.path.parent == base
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert base.stat().st_mode & 0o777 == 0o700
    assert not folder.path.exists()


def test_every_socket_has_a_path_of_its_own(base: Path) -> None:
    with own_run_folder(base) as (folder, _):
        paths = {folder.next_socket(), folder.next_socket(), folder.control_socket}
        assert len(paths) == 3
        assert all(path.suffix == ".sock" for path in paths)


@pytest.mark.parametrize("name", ["x" * 120, "é" * 45])
def test_a_path_too_long_for_a_socket_is_refused_with_its_key(base: Path, name: str) -> None:
    with (
        pytest.raises(OperatorError, match=r"too long .* folders\.run"),
        own_run_folder(base / name),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_refused_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    base = tmp_path / "file" / "run"
    with pytest.raises(OperatorError, match=r"Not a directory.*folders\.run"), own_run_folder(base):
        pass


def test_the_users_runtime_folder_is_the_base_if_it_can_be_written(
    tmp_path: Path, temporary: Path
) -> None:
    assert default_base({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "llamasup"
    assert default_base({"XDG_RUNTIME_DIR": str(tmp_path / "gone")}) == temporary
    assert default_base({}) == temporary
    assert temporary.stat().st_mode & 0o777 == 0o700


def open_to_others(place: Path) -> None:
    place.mkdir()
    place.chmod(0o755)


def link_to_a_private_folder(place: Path) -> None:
    private = place.with_name("private")
    private.mkdir(mode=0o700)
    place.symlink_to(private)


@pytest.mark.parametrize("occupy", [open_to_others, link_to_a_private_folder, Path.touch])
def test_a_place_among_temporary_files_that_is_not_ours_alone_is_refused_with_the_key(
    occupy: Callable[[Path], None], temporary: Path
) -> None:
    occupy(temporary)
    with pytest.raises(OperatorError, match=r"this user alone.*folders\.run"):
        default_base({})


def test_a_place_among_temporary_files_that_is_another_users_is_refused_with_the_key(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = os.getuid() + 1
    temporary.with_name(f"llamasup-{stranger}").mkdir(mode=0o700)
    monkeypatch.setattr("os.getuid", lambda: stranger)
    with pytest.raises(OperatorError, match=r"this user alone.*folders\.run"):
        default_base({})


def test_a_place_that_cannot_be_made_is_refused_with_the_key(temporary: Path) -> None:
    temporary.parent.rmdir()
    with pytest.raises(OperatorError, match=r"No such file.*folders\.run"):
        default_base({})


# --- what the dead left ---


def test_a_living_child_of_a_dead_llamasup_is_found_and_its_folder_removed(
    base: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    child = Process.of(sleeper.pid)
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
def test_a_mark_that_names_nobody_does_no_harm(base: Path, mark: str) -> None:
    marked(base, mark)
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
    orphan = Process.of(deaf.pid)
    assert orphan is not None
    with trio.fail_after(10):
        await sweep([orphan])
    assert not orphan.alive()


async def test_an_orphan_that_ends_by_itself_in_time_is_left_to_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with subprocess.Popen(["sleep", "0.3"]) as finishing:
        orphan = Process.of(finishing.pid)
        assert orphan is not None
        await sweep([orphan], patience=20)
        assert not orphan.alive()
        assert finishing.wait() == 0
    assert "ending process" not in caplog.text


async def test_an_orphan_that_does_not_end_by_itself_in_time_is_ended(
    sleeper: subprocess.Popen[bytes],
) -> None:
    orphan = Process.of(sleeper.pid)
    assert orphan is not None
    await sweep([orphan], patience=0.1)
    assert sleeper.wait() == -signal.SIGTERM


def test_orphans_are_known_to_the_next_one_also_if_they_were_not_ended_yet(
    base: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    orphan = Process.of(sleeper.pid)
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


def test_the_mark_of_one_that_is_gone_is_removed_without_any_descriptor(
    base: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    with own_run_folder(base) as (folder, _):
        folder.mark(sleeper.pid)
        assert len(list(folder.path.iterdir())) == 1
        with out_of_descriptors():
            folder.unmark(sleeper.pid)
            folder.unmark(sleeper.pid)
        assert list(folder.path.iterdir()) == []


def test_a_process_may_have_a_name_that_is_no_text() -> None:
    with oddly_named() as process:
        assert (found := Process.of(process.pid)) is not None
        assert found.alive()


def test_a_process_that_may_not_be_signalled_any_more_is_as_good_as_gone(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    process = Process.of(sleeper.pid)
    assert process is not None
    with monkeypatch.context() as macos:
        macos.setattr(os, "killpg", refuse)
        macos.setattr(os, "kill", refuse)
        process.signal(signal.SIGTERM)
    assert process.alive()


def test_a_process_is_another_one_with_another_start_time(
    sleeper: subprocess.Popen[bytes],
) -> None:
    process = Process.of(sleeper.pid)
    assert process is not None
    assert process.alive()
    stranger = Process(sleeper.pid, "1")
    assert not stranger.alive()
    stranger.signal(signal.SIGKILL)
    assert process.alive()
    process.signal(signal.SIGKILL)
    sleeper.wait()
    assert Process.of(sleeper.pid) is None


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


def test_a_base_that_others_may_write_is_refused(base: Path) -> None:
    base.mkdir()
    base.chmod(0o777)
    with (
        pytest.raises(OperatorError, match=r"everybody may write it.*folders\.run"),
        own_run_folder(base),
    ):
        pass
    base.chmod(0o755)  # as a service manager makes it
    with own_run_folder(base):
        pass


def test_a_mark_of_somebody_else_ends_nobody(
    base: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        monkeypatch.setattr("llamasup.processes.orphans.why_not_private", lambda _: "")
    process = Process.of(sleeper.pid)
    assert process is not None
    folder = marked(base, f"child-{process.pid}-{process.started}")
    if os.geteuid() == 0:
        for path in folder.iterdir():
            os.chown(path, 65534, 65534)
    with own_run_folder(base) as (_, left):
        assert left == []


def test_two_of_the_same_pid_share_a_base(base: Path) -> None:
    """In two containers, each is process 1."""
    with own_run_folder(base) as (one, _), own_run_folder(base) as (other, left):
        assert one.path != other.path
        assert left == []
    assert list(base.iterdir()) == []


# --- a folder that goes while it is used ---


async def test_a_run_folder_that_is_removed_is_made_anew_and_knows_who_lives(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llamasup.processes.orphans._LOOK_AGAIN", 0.01)
    renewed: list[Path] = []
    with own_run_folder(base) as (folder, _):
        folder.mark(os.getpid())
        marks = sorted(mark.name for mark in folder.path.iterdir())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(folder.keep, lambda: renewed.append(folder.path))
            for times in (1, 2):
                shutil.rmtree(base)
                await eventually(lambda: len(renewed) == times)  # noqa: B023
                assert sorted(mark.name for mark in folder.path.iterdir()) == marks
            nursery.cancel_scope.cancel()
        assert caplog.text.count("was removed; it is") == 2
    assert not folder.path.exists()


async def test_where_there_can_be_no_run_folder_any_more_it_is_among_temporary_files(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("llamasup.processes.orphans._LOOK_AGAIN", 0.01)
    monkeypatch.setattr("llamasup.processes.orphans._private_base", lambda: elsewhere)
    renewed = trio.Event()
    with (
        tempfile.TemporaryDirectory(prefix="llamasup-test-") as temporary,
        own_run_folder(base / "runtime") as (folder, _),
    ):
        elsewhere = Path(temporary)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(folder.keep, renewed.set)
            shutil.rmtree(base / "runtime")
            (base / "runtime").write_text("nobody may make a folder here")
            await renewed.wait()
            nursery.cancel_scope.cancel()
        assert folder.path.parent == elsewhere
        assert folder.path.stat().st_mode & 0o777 == 0o700

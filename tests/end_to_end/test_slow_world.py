"""Nobody reads the log, no thread can be had, a disk does not answer: llamasup serves, and ends.

Each is a process of its own, for what hangs here would hold up the tests.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import trio

from llamasup.config.addresses import UnixAddress
from tests.conftest import EMPTY_MODEL
from tests.harness import (
    FAKE,
    LLAMASUP,
    PATIENCE,
    REPOSITORY,
    Client,
    chat,
    eventually,
    request,
    script,
)

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"
SOON = 8.0
"""Seconds: more than an end ever takes, less than any patience that nobody shall need."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """For its sockets; the path is short, as Unix sockets need it."""
    with TemporaryDirectory(prefix="llamasup-test-") as folder:
        yield Path(folder)


@pytest.fixture
def unread() -> Iterator[int]:
    """The end of a pipe that is full, and that nobody reads."""
    out, into = os.pipe()
    os.set_blocking(into, False)
    with suppress(BlockingIOError):
        while True:
            os.write(into, b"x" * 4096)
    os.set_blocking(into, True)
    yield into
    os.close(out)
    os.close(into)


class Subject:
    """A llamasup on a Unix socket."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self._address = UnixAddress(str(folder / "front.sock"))

    def connect(self) -> Client:
        return Client(self._address)

    async def ask(self, method: str, path: str, body: object = None) -> int:
        """One request on a connection of its own; its status."""
        async with self.connect() as client:
            await client.send(request(method, path, body))
            return (await client.reply()).status

    async def is_up(self) -> bool:
        with suppress(OSError):
            async with self.connect():
                return True
        assert self.process.poll() is None
        return False

    async def ends(self, within: float = SOON) -> int:
        """Its exit status, soon."""
        await eventually(lambda: self.process.poll() is not None, within)
        return self.process.returncode


@asynccontextmanager
async def serving(
    folder: Path,
    *arguments: str,
    stderr: int = subprocess.DEVNULL,
    under: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Subject]:
    command = [*under, *LLAMASUP, "serve", "--listen", f"unix:{folder}/front.sock"]
    command += [f"--set=folders.{name}={folder}/{name}" for name in ("run", "cache", "state")]
    with subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})},
    ) as process:
        subject = Subject(process, folder)
        try:
            await eventually(subject.is_up)
            yield subject
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


async def test_a_log_that_is_not_read_holds_up_nothing(folder: Path, unread: int) -> None:
    async with serving(folder, "--log-level", "debug", stderr=unread) as subject:
        async with subject.connect() as client:
            for number in range(1000):
                await client.send(request("POST", f"/nowhere/{number}?{'x' * 200}", b"{}"))
                assert (await client.reply()).status == 404
        assert await subject.ask("GET", "/health") == 200
        subject.process.terminate()
        assert await subject.ends() == 0


async def test_the_second_signal_wins_though_the_log_is_not_read(folder: Path, unread: int) -> None:
    async with serving(folder, stderr=unread) as subject, subject.connect() as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        subject.process.terminate()
        await eventually(lambda: not (folder / "front.sock").exists())
        subject.process.terminate()
        assert await subject.ends() == 0


async def test_no_word_of_a_client_looks_like_ours_in_the_log(folder: Path) -> None:
    forged = "x\n2026-01-01 00:00:00,000 ERROR   all models are gone\x1b[2J\u202e"
    log = folder / "log"
    with log.open("wb") as stderr:
        async with serving(folder, stderr=stderr.fileno()) as subject:
            body = {"model": forged, "messages": []}
            assert await subject.ask("POST", "/v1/chat/completions?api_key=sesame", body) == 404
            for _ in range(50):
                await subject.ask("POST", "/" + "y" * 50_000 + "?api_key=sesame", b"{}")
            subject.process.terminate()
            assert await subject.ends() == 0
    said = log.read_text()
    assert r"x\n2026-01-01 00:00:00,000 ERROR   all models are gone\x1b[2J\u202e" in said
    assert all(line.isprintable() for line in said.splitlines())
    assert not [line for line in said.splitlines() if line.startswith("2026-01-01")]
    assert "sesame" not in said
    assert len(said) < 20_000


@pytest.fixture
def hung() -> Iterator[Path]:
    """A folder on a file system that never answers: nobody serves this FUSE mount."""
    with TemporaryDirectory(prefix="llamasup-test-") as folder, mounted(Path(folder)):
        yield Path(folder)


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error.strerror}")
    options = f"fd={fuse},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    where = os.fsencode(folder)
    try:
        if libc.mount(b"llamasup-test", where, b"fuse", 0, options.encode()):
            pytest.skip(f"no mount may be made here: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        os.close(fuse)  # which ends the wait of all that hang there
        libc.umount2(where, 2)


def model(folder: Path, name: str) -> Path:
    path = folder / f"{name}.gguf"
    path.write_bytes(EMPTY_MODEL)
    return path


async def test_fifos_among_the_models_and_a_hung_folder_hold_up_nothing(
    folder: Path, hung: Path
) -> None:
    (folder / "models").mkdir()
    os.mkfifo(folder / "models" / "fifo.gguf")
    os.mkfifo(folder / "configured.gguf")
    model(folder / "models", "good")
    arguments = [
        *("--models-dir", str(folder / "models"), "--models-dir", str(hung)),
        f"--set=models.configured.path={folder}/configured.gguf",
        f"--set=models.far.path={hung}/far.gguf",
        f"--set=engine.command={FAKE}",
    ]
    async with serving(folder, *arguments) as subject:
        with trio.fail_after(3 * SOON):
            for path in ("/v1/models", "/v1/models", "/modelFits", "/health"):
                assert await subject.ask("GET", path) == 200
            chats = [
                await subject.ask("POST", "/v1/chat/completions", {"model": name, "messages": []})
                for name in ("good", "nobody")
            ]
        assert chats == [200, 404]
        assert psutil.Process(subject.process.pid).num_threads() < 16
        subject.process.terminate()
        assert await subject.ends() == 0


def test_a_fifo_as_configuration_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "llamasup.toml")
    done = subprocess.run(
        [*LLAMASUP, "check", str(folder / "llamasup.toml")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert "this is no regular file; write the configuration into one" in done.stderr


async def test_a_fifo_in_the_place_of_what_was_learned_holds_up_nothing(folder: Path) -> None:
    (folder / "state").mkdir()
    os.mkfifo(folder / "state" / "state.json")
    async with serving(folder) as subject:
        assert await subject.ask("GET", "/health") == 200
        subject.process.terminate()
        assert await subject.ends() == 0


# A disk that is slow, or hangs


class Disk:
    """A folder where every look takes its time, and what llamasup did there meanwhile."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.path = folder / "disk"
        self.path.mkdir()
        self._notes = folder / "notes"
        self.slowness = {
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parent / "slow_disk"), str(REPOSITORY)]
            ),
            "SLOW_DISK": str(self.path),
            "SLOW_DISK_SECONDS": str(seconds),
            "SLOW_DISK_NOTES": str(self._notes),
        }

    def looks(self, where: str) -> list[str]:
        """Those that were made on the loop, or in threads."""
        return [line for line in self._notes.read_text().splitlines() if line.startswith(where)]


def arguments_of(folder: Path, disk: Disk) -> list[str]:
    """Two models here, and one on the disk; a folder of models there, and the engine, too."""
    for name in ("here", "beside"):
        model(folder, name)
    for name in ("there", "found"):
        model(disk.path, name)
    engine = script(disk.path / "llama-server", f'exec {FAKE} "$@"')
    return [
        f"--set=models.here.path={folder}/here.gguf",
        f"--set=models.beside.path={folder}/beside.gguf",
        f"--set=models.there.path={disk.path}/there.gguf",
        *("--models-dir", str(disk.path)),
        f"--set=engine.command={engine}",
        '--set=engine.args=["--fake-token-delay", "0.01"]',
    ]


class Stream:
    """A long answer, and how long its client waited for the next piece at most."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.longest_pause = 0.0

    async def listen(self, subject: Subject, model: str) -> None:
        async with subject.connect() as client:
            await client.send(request("POST", CHAT, chat(100_000, model=model)))
            while b" 0" not in client.unread:
                client.unread += await client.read_some()
            self.begun.set()
            while True:
                before = trio.current_time()
                await client.read_some()
                self.longest_pause = max(self.longest_pause, trio.current_time() - before)


async def test_a_disk_that_is_slow_is_looked_at_in_threads_alone(folder: Path) -> None:
    disk = Disk(folder, 0.1)
    arguments = arguments_of(folder, disk)
    statuses = list[int]()
    async with serving(folder, *arguments, environment=disk.slowness) as subject:

        async def ask(method: str, path: str, body: object = None) -> None:
            statuses.append(await subject.ask(method, path, body))

        async with trio.open_nursery() as asking:
            for path in ("/v1/models", "/modelFits", "/api/status", "/health"):
                asking.start_soon(ask, "GET", path)
            for name in ("there", "beside", "found"):
                asking.start_soon(ask, "POST", CHAT, chat(3, model=name))
        subject.process.terminate()
        assert await subject.ends() == 0
    assert statuses == [200] * 7
    assert disk.looks("thread")
    assert disk.looks("loop") == []


async def test_a_disk_that_hangs_is_waited_for_by_its_own_clients_alone_and_by_no_end(
    folder: Path,
) -> None:
    disk = Disk(folder, 600.0)
    arguments = [
        *arguments_of(folder, disk),
        f"--set=engine.command={FAKE}",
    ]
    async with serving(folder, *arguments, environment=disk.slowness) as subject:
        stream = Stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.listen, subject, "here")
            with trio.fail_after(3 * PATIENCE):
                await stream.begun.wait()
                for path in ("/health", "/v1/models", "/modelFits", "/api/status"):
                    assert await subject.ask("GET", path) == 200
                assert await subject.ask("POST", CHAT, chat(3, model="beside")) == 200
            nursery.cancel_scope.cancel()
        assert disk.looks("loop") == []
        assert stream.longest_pause < 0.9
        async with subject.connect() as waiting, subject.connect() as listing:
            await waiting.send(request("POST", CHAT, chat(3, model="there")))
            await listing.send(request("GET", "/modelFits"))
            await trio.sleep(0.5)
            subject.process.terminate()
            assert await subject.ends() == 0


async def test_an_engine_on_a_disk_that_hangs_is_told_of_and_not_waited_for(folder: Path) -> None:
    disk = Disk(folder, 600.0)
    with subprocess.Popen(
        [*LLAMASUP, "serve", *arguments_of(folder, disk), "--listen", f"unix:{folder}/front.sock"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **disk.slowness},
    ) as process:
        try:
            said, status = await trio.to_thread.run_sync(process.communicate), process.returncode
        finally:
            process.kill()
    assert status == 2
    assert b"the engine cannot be looked for: no answer within 10 s" in said[1]
    assert disk.looks("loop") == []

"""A llamasup on a port of its own, and a client that watches every byte.

In this very process (`running`), so that a test can see what no client can: which tasks are left.
Or as the program that operators start (`started`), for what concerns a whole process.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import trio
from attrs import field, frozen

from llamasup.config.addresses import Address, TcpAddress, UnixAddress, parse_address
from llamasup.config.schema import Config
from llamasup.config.source import Source
from llamasup.models.demo import reciting_model
from llamasup.models.library import Look
from llamasup.serve import serve

REPOSITORY = Path(__file__).parent.parent
LLAMASUP = [sys.executable, "-m", "llamasup"]
FAKE_PROGRAM = Path(__file__).parent / "fakes" / "llama_server.py"
FAKE = shlex.join([sys.executable, str(FAKE_PROGRAM)])
PATIENCE = 20.0
"""How long anything may take that should take a moment: reached only by a failing test."""


@contextmanager
def out_of_descriptors() -> Iterator[None]:
    """This process can open nothing more; what is open stays so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_threads() -> Iterator[None]:
    """No thread can be started, and trio has none left that idles."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    cache = trio._core._thread_cache.ThreadCache
    soon, cache.start_thread_soon = cache.start_thread_soon, refuse  # type: ignore[method-assign]
    start, threading.Thread.start = threading.Thread.start, refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        cache.start_thread_soon = soon  # type: ignore[method-assign]


def counting_model(
    path: Path, *, up_to: int = 3000, context: int = 32768, hidden: int = 32
) -> Path:
    """A model that answers " 0 1 2 3 …", whatever it is asked; the more `hidden`, the slower."""
    chain = [f" {number}" for number in range(up_to)]
    path.write_bytes(reciting_model(chain, context=context, name=path.stem, hidden=hidden))
    return path


def script(path: Path, *lines: str) -> str:
    """A shell script at `path`, and how to call it. Written beside, then moved there."""
    draft = path.with_suffix(".new")
    draft.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    draft.chmod(0o755)
    draft.replace(path)
    return str(path)


def counted(tokens: int) -> str:
    """What the counting model says in so many tokens."""
    return "".join(f" {number}" for number in range(tokens))


@frozen
class Llamasup:
    """A running one, as its clients see it."""

    address: TcpAddress
    run_folder: Path
    tasks_at_rest: int = field(default=0)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def connect(self) -> Client:
        """A connection of one's own."""
        return Client(self.address)

    async def connect_to_engine(self, model: str) -> Client:
        """A connection to a loaded model's engine, past llamasup."""
        return Client(parse_address((await self.model_status(model))["child"]["address"]))

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request on a connection of its own."""
        with trio.fail_after(PATIENCE):
            async with self.connect() as client:
                await client.send(request(method, path, body, headers))
                return await client.reply()

    async def status(self) -> Any:
        """`/api/status`."""
        return (await self.ask("GET", "/api/status")).json()

    async def model_status(self, name: str) -> Any:
        """What `/api/status` says of one model."""
        return next(m for m in (await self.status())["models"] if m["name"] == name)


def request(
    method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """A request's bytes; `body` is bytes, or becomes JSON."""
    content = (
        b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [
        f"{name}: {value}" for name, value in {"Host": "localhost", **(headers or {})}.items()
    ]
    if body is not None:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def chat(
    tokens: int, *, stream: bool = True, model: str | None = None, **more: object
) -> dict[str, object]:
    """The body of a chat request that asks for so many tokens."""
    body: dict[str, object] = {
        "messages": [{"role": "user", "content": "count"}],
        "max_tokens": tokens,
        "stream": stream,
        **more,
    }
    return body if model is None else {"model": model, **body}


@frozen
class Reply:
    """A whole reply. `complete` is False if the connection ended before its framing said so."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = True

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """Its error, with the code by name; in llama.cpp's own API that is a number."""
        error = self.json()["error"]
        return {**error, "code": error.get("reason", error.get("code"))}

    def events(self) -> list[str]:
        """The data of each server-sent event."""
        return [
            event.removeprefix("data: ")
            for event in self.body.decode().split("\n\n")
            if event.startswith("data: ")
        ]

    def text(self) -> str:
        """What a streamed chat said."""
        deltas = [json.loads(event) for event in self.events() if event != "[DONE]"]
        return "".join(
            choice["delta"].get("content") or "" for delta in deltas for choice in delta["choices"]
        )


class Client:
    """A raw connection: sends what it is told, reads replies strictly, leaves as it is told."""

    def __init__(self, address: Address, source: str | None = None) -> None:
        """It comes from `source`: all of 127.0.0.0/8 is ours on Linux."""
        self._address = address
        self._source = source
        self._stream: trio.SocketStream
        self.unread = bytearray()

    async def __aenter__(self) -> Client:
        if isinstance(self._address, UnixAddress):
            self._stream = await trio.open_unix_socket(self._address.path)
        else:
            self._stream = await trio.open_tcp_stream(
                self._address.host, self._address.port, local_address=self._source
            )
        return self

    async def __aexit__(self, *error: object) -> None:
        await trio.aclose_forcefully(self._stream)

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def read_some(self) -> bytes:
        """The next bytes, b"" at the end; a reset raises trio.BrokenResourceError."""
        with trio.fail_after(PATIENCE):
            return bytes(await self._stream.receive_some(65536))

    async def _read_on(self) -> bytes:
        """The next bytes, b"" also after a reset."""
        try:
            return await self.read_some()
        except trio.BrokenResourceError:
            return b""

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to and including `mark`, b"" if the connection ends or breaks before."""
        while mark not in self.unread:
            if not (data := await self._read_on()):
                return b""
            self.unread += data
        end = self.unread.index(mark) + len(mark)
        found = bytes(self.unread[:end])
        del self.unread[:end]
        return found

    async def head(self) -> tuple[int, dict[str, str]]:
        """A reply's status and headers (names in lower case)."""
        lines = (await self.read_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if not lines[0]:
            raise EOFError("the connection ended without a reply")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:-2])
        }
        return int(lines[0].split(" ")[1]), headers

    async def reply(self, *, to_head: bool = False) -> Reply:
        """The next reply, whole."""
        status, headers = await self.head()
        if to_head or status in (204, 304):
            return Reply(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body, complete = await self.chunks()
        elif "content-length" in headers:
            body, complete = await self._counted(int(headers["content-length"]))
        else:
            body, complete = await self._rest()
        return Reply(status, headers, body, complete)

    async def chunks(self) -> tuple[bytes, bool]:
        """The rest of a chunked body, and whether it came to its end."""
        body = b""
        while size_line := await self.read_until(b"\r\n"):
            size = int(size_line, 16)
            content, complete = await self._counted(size + 2)
            body += content[:size]
            if not size or not complete:
                return body, complete
        return body, False

    async def _counted(self, length: int) -> tuple[bytes, bool]:
        while len(self.unread) < length and (data := await self._read_on()):
            self.unread += data
        content = bytes(self.unread[:length])
        del self.unread[:length]
        return content, len(content) == length

    async def _rest(self) -> tuple[bytes, bool]:
        try:
            while data := await self.read_some():
                self.unread += data
        except trio.BrokenResourceError:
            return bytes(self.unread), False
        return bytes(self.unread), True

    def leave_by_fin(self) -> None:
        """Close politely."""
        self._stream.socket.close()

    def leave_by_reset(self) -> None:
        """Close with an RST."""
        linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._stream.socket.close()

    def leave_by_half_close(self) -> None:
        """Send no more, but keep the connection."""
        self._stream.socket.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def running(
    config: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    *,
    file: Path | None = None,
) -> AsyncIterator[Llamasup]:
    """llamasup with `config` (dotted keys, as flags have them), until the end of the block.

    Where there is a `file`, that says where to listen.
    """
    with tempfile.TemporaryDirectory(prefix="llamasup-test-") as folder:
        flags = {
            **({} if file else {"server.listen": ["127.0.0.1:0"]}),
            "folders.run": f"{folder}/run",
            "folders.cache": f"{folder}/cache",
            "folders.state": f"{folder}/state",
            **config,
        }
        async with trio.open_nursery() as nursery:
            source = Source(file, {}, flags)
            address = await nursery.start(_serve, source, environ or os.environ)
            yield Llamasup(address, Path(folder) / "run" / str(os.getpid()))
            nursery.cancel_scope.cancel()


async def _serve(
    source: Source,
    environ: Mapping[str, str],
    task_status: trio.TaskStatus[TcpAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    def announce(config: Config, addresses: list[Address], look: Look) -> None:
        assert isinstance(addresses[0], TcpAddress)
        task_status.started(addresses[0])

    await serve(source.load(), source, environ, announce)


class Program:
    """`llamasup serve` as a process, and what it has said to its operator so far."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = ""
        self._silent = trio.Event()

    async def hears(self, words: str) -> None:
        """Wait until it has said `words`."""
        await eventually(lambda: words in self.said)

    async def listens(self, run: Path) -> Llamasup:
        """Wait until it does. `run` is its `folders.run`."""
        await eventually(lambda: _LISTENS.search(self.said) or self.process.returncode is not None)
        found = _LISTENS.search(self.said)
        assert found, self.said
        address = TcpAddress(found[1], int(found[2]))
        return Llamasup(address, run / str(self.process.pid))

    async def exit(self) -> int:
        """Wait until it has ended and said everything; its exit status."""
        with trio.fail_after(PATIENCE):
            await self._silent.wait()
            return await self.process.wait()

    async def listen(self) -> None:
        """Take down what it says, to the end."""
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.said += bytes(data).decode()
        self._silent.set()


_LISTENS = re.compile(r"listens on http://(\S+):(\d+)")


@asynccontextmanager
async def started(
    *arguments: str | Path,
    cwd: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    under: Sequence[str] = (),
) -> AsyncIterator[Program]:
    """`llamasup serve` with `arguments`, in a session of its own; ended with the block.

    `under` is a command that becomes it: `under=limited("-n 1024")`.
    """
    process = await trio.lowlevel.open_process(
        [*under, *LLAMASUP, "serve", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=cwd,
        env={**environ, "PYTHONPATH": str(REPOSITORY)},  # it need not be installed
    )
    program = Program(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(program.listen)
        try:
            yield program
        finally:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()


def limited(limit: str) -> list[str]:
    """Whatever follows these words runs under this limit of the shell's `ulimit`."""
    return ["/bin/sh", "-c", f'ulimit {limit}; exec "$@"', "sh"]


def tasks() -> list[str]:
    """The names of all tasks that run in this trio, for a test to see that none is left."""

    def below(task: trio.lowlevel.Task) -> Iterator[str]:
        yield task.name
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                yield from below(child)

    root = trio.lowlevel.current_root_task()
    assert root is not None
    return sorted(below(root))


async def eventually(condition: Any, within: float = PATIENCE) -> None:
    """Wait until `condition()` (plain or async) is true; fail after `within` seconds."""
    with trio.fail_after(within):
        while True:
            result = condition()
            if hasattr(result, "__await__"):
                result = await result
            if result:
                return
            await trio.sleep(0.002)


class Journal:
    """What a fake engine wrote down about its lives."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self, event: str | None = None) -> list[dict[str, Any]]:
        """Every entry so far, or those of one event."""
        if not self.path.exists():
            return []
        entries = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [entry for entry in entries if event is None or entry["event"] == event]

    async def first(self, event: str) -> dict[str, Any]:
        """The first entry of `event`, waiting for it."""
        await eventually(lambda: self.entries(event))
        return self.entries(event)[0]


@contextmanager
def oddly_named() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose name the kernel has cut in the middle of a letter."""
    cut = "é".encode()[:1]
    name = f"import ctypes, sys; ctypes.CDLL(None).prctl(15, {cut!r}); print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{name}; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert cut in Path(f"/proc/{process.pid}/stat").read_bytes()
        yield process
        process.kill()


def steps(deed: Callable[[], object]) -> int:
    """How much Python does for this deed: lines, again for each turn of a loop, and calls into C.

    The same on a busy machine as on a quiet one. What C does within a call is not seen.
    """
    taken = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal taken
        taken += event == "line"
        return line

    def call(frame: FrameType, event: str, argument: object) -> None:
        nonlocal taken
        taken += event == "c_call"

    tracing, profiling = sys.gettrace(), sys.getprofile()
    sys.settrace(line)
    sys.setprofile(call)
    try:
        deed()
    finally:
        sys.settrace(tracing)
        sys.setprofile(profiling)
    return taken


class Holdups(trio.abc.Instrument):
    """How long each task has held up all others at most, from one checkpoint to the next."""

    def __init__(self) -> None:
        self._steps: dict[str, float] = {}
        self._began: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio says so."""
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio says so."""
        if self._began is not None:  # this began to look in the middle of a step
            took = time.thread_time() - self._began
            self._steps[task.name] = max(took, self._steps.get(task.name, 0.0))

    def longest(self, task: str = "") -> float:
        """The longest step, in seconds of CPU, of tasks with these words in their names."""
        return max((took for name, took in self._steps.items() if task in name), default=0.0)

    def taken(self) -> tuple[float, str]:
        """The longest step of all and its task, since they were taken last."""
        steps, self._steps = self._steps, {}
        name = max(steps, key=steps.__getitem__, default="")
        return steps.get(name, 0.0), name


@contextmanager
def loop_holdups() -> Iterator[Holdups]:
    """What holds up the event loop within the block, in CPU time: other processes do not count.

    A test is a task, too: `holdups.longest("Front._attend")` are the conversations alone.
    """
    holdups = Holdups()
    gc.collect()
    gc.freeze()  # as `serve` does: else each collection goes through all that other tests have left
    trio.lowlevel.add_instrument(holdups)
    try:
        yield holdups
    finally:
        trio.lowlevel.remove_instrument(holdups)
        gc.unfreeze()


def is_alive(pid: int) -> bool:
    """Is there such a process (a zombie is none)?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, or since
        return False

"""Fake llama-servers elsewhere: programs on ports of their own, which die and come back."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType

import trio

from tests.harness import FAKE_PROGRAM, Journal, Llamasup, eventually, running


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Elsewhere:
    """One fake llama-server, which can be started, killed and started again on its port."""

    def __init__(self, folder: Path, name: str, *options: str, model: str = "far.gguf") -> None:
        self.name = name
        self.port = free_port()
        self.journal = Journal(folder / f"{name}.jsonl")
        self._options = [*options, "--model", model]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Elsewhere:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def entry(self) -> dict[str, object]:
        """Its entry in `[[endpoints]]`."""
        return {"name": self.name, "url": f"http://127.0.0.1:{self.port}"}

    @property
    def requests(self) -> list[dict[str, object]]:
        """The POSTs that it got."""
        return [e for e in self.journal.entries("request") if e["method"] == "POST"]

    def start(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, FAKE_PROGRAM, *self._options, *options, "--fake-ignore-stdin"),
                *("--port", str(self.port), "--fake-journal", str(self.journal.path)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self, by: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(by)
            self._process.wait()
            self._process = None

    async def is_ready(self) -> None:
        """Wait until it would answer."""
        await eventually(lambda: self.journal.entries("ready"))


@contextmanager
def fakes_elsewhere(
    folder: Path, *names: str, options: tuple[str, ...] = ()
) -> Iterator[list[Elsewhere]]:
    """Some of them, all with the same model."""
    fakes = [Elsewhere(folder, name, *options) for name in names]
    for fake in fakes:
        fake.start()
    try:
        yield fakes
    finally:
        for fake in fakes:
            fake.kill()


@asynccontextmanager
async def knowing(
    *fakes: Elsewhere, entry: dict[str, object] | None = None, **config: object
) -> AsyncIterator[Llamasup]:
    """A llamasup that has these as endpoints; `entry` is added to each entry of the list."""
    endpoints = [fake.entry | (entry or {}) for fake in fakes]
    async with running({"endpoints": endpoints, **config}) as llamasup:
        yield llamasup


async def asked(llamasup: Llamasup, times: int, body: object, statuses: list[int]) -> None:
    """Ask so many times at once; the status of each answer is added."""

    async def ask() -> None:
        reply = await llamasup.ask("POST", "/v1/chat/completions", body)
        statuses.append(reply.status)

    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(ask)

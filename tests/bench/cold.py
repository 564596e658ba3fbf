"""Cold start: what llamasup adds between a first request and its first byte.

Beside each start through llamasup, the very same engine command, read from the child that llamasup
started, is started by hand, and asked as soon as it says that it listens.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench import clients, meters
from tests.bench.measures import Bench
from tests.bench.proxies import Llamasup, Unavailable, Way, stop
from tests.bench.report import Figure, Target

STREAM = clients.completion(stream=True, bench={"chunks": 3, "rate": 100})


@dataclass(frozen=True)
class EngineCommand:
    """How llamasup started its child: everything but the address."""

    arguments: list[str]
    environment: dict[str, str]

    @classmethod
    def of_child(cls, way: Way) -> EngineCommand:
        for child in psutil.Process(way.pids[0]).children():
            if "--host" in (arguments := child.cmdline()):
                return cls(arguments, child.environ())
        raise Unavailable("it answered, but no child of it has --host in its command")

    def listening_on(self, path: Path) -> list[str]:
        value = self.arguments.index("--host") + 1
        return [*self.arguments[:value], str(path), *self.arguments[value + 1 :]]


def cold_start(bench: Bench, name: str, llamasup: Llamasup) -> list[Figure]:
    """First byte of a streamed answer: through llamasup, and (as "direct") of the engine alone."""
    first_byte = Figure(f"cold start, {name}", "ms")
    with bench.excusing("llamasup"):
        for _ in range(bench.pace.cold_rounds):
            with bench.fresh_llamasup(llamasup) as way:
                meters.wait_until_quiet(way.pids[0])
                first_byte.add("llamasup", _ask(way.address) * 1000)
                command = EngineCommand.of_child(way)
            first_byte.add("direct", _start_by_hand_and_ask(command) * 1000)
    return [first_byte, first_byte.beyond_direct("  beyond the engine", Target("value", 25))]


def _ask(address: clients.Address) -> float:
    """Seconds from the request to the first event of its answer."""
    with clients.connect(address) as sock:
        start = time.monotonic()
        sock.sendall(STREAM)
        clients.wait_for_data(sock)
        return time.monotonic() - start


def _start_by_hand_and_ask(command: EngineCommand) -> float:
    """Seconds from spawning the engine to the first event of its answer."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "engine.sock"
        start = time.monotonic()
        with started_by_hand(command, path):
            _ask(os.fspath(path))
            return time.monotonic() - start


@contextlib.contextmanager
def started_by_hand(command: EngineCommand, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The engine, from when it listens on `path`; stopped with the block."""
    process = subprocess.Popen(
        command.listening_on(path),
        env=command.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        _wait_until_it_listens(process)
        yield process
    finally:
        if process.poll() is None:
            stop(process)
            process.communicate()


def _wait_until_it_listens(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    for line in process.stdout:
        if b"listening on" in line:
            return
    raise Unavailable("the engine, started by hand, ended before it listened")

"""The llamasup that suffers: a real process in a folder of its own, its log and its children."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import toml
import trio
from attrs import frozen

from llamasup.config.addresses import TcpAddress
from tests.chaos.load import Kind, Outcome, Request
from tests.harness import Llamasup, eventually

LLAMASUP = (sys.executable, "-m", "llamasup")
_NARROW = 4096
"""Bytes of a pipe: a log that nobody reads is full at once."""

PATIENCE = 20.0
"""How long a start, a stop or the end of orphans may take at most."""

_READY = re.compile(r"^(\S+ \S+) INFO +(\S+)\[(\d+)\] is ready after", re.MULTILINE)


@frozen
class Ready:
    """A line of the log: this child of this model was ready then (seconds since the epoch)."""

    at: float
    model: str
    pid: int


class Subject:
    """One llamasup over its lives: it may be killed, and started again in the same folder."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        command: Sequence[str] = LLAMASUP,
        log_file: Path | None = None,
        has_scribe: bool = False,
    ) -> None:
        """With a scribe, the log goes through a pipe and another process, which may fall asleep."""
        self.folder = folder
        self._has_scribe = has_scribe
        self._scribe: subprocess.Popen[bytes] | None = None
        self.log_file = log_file or folder / "log"
        self.address: TcpAddress
        self._command = command
        self._process: subprocess.Popen[bytes]
        self._file = folder / "llamasup.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(toml.dumps(_nested(self._defaults() | dict(settings))))

    def _defaults(self) -> dict[str, object]:
        return {
            "server.listen": "127.0.0.1:0",
            **{f"folders.{name}": str(self.folder / name) for name in ("run", "cache", "state")},
            # A hang shall be noticed soon, and a wait never be mistaken for one.
            "engine.load_timeout": 2,
            "recovery.stall_timeout": 2,
            "recovery.health_interval": 1,
            "recovery.patience": 20,
            "recovery.retirement": 10,
        }

    @property
    def pid(self) -> int:
        """llamasup's own."""
        return self._process.pid

    @property
    def log(self) -> str:
        """All that this life and those before it have logged."""
        return self.log_file.read_text() if self.log_file.is_file() else ""

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        with self.log_file.open("ab") as log:
            if self._has_scribe:
                self._scribe = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
                assert self._scribe.stdin is not None
                fcntl.fcntl(self._scribe.stdin, fcntl.F_SETPIPE_SZ, _NARROW)
            self._process = subprocess.Popen(
                [*self._command, "serve", str(self._file)],
                stderr=self._scribe.stdin if self._scribe else log,
                stdin=subprocess.DEVNULL,
            )
            if self._scribe and self._scribe.stdin:
                self._scribe.stdin.close()
        await eventually(lambda: self._listens() or self._process.poll() is not None)
        if self._process.poll() is not None:
            raise AssertionError(f"llamasup did not start:\n{self.log}")

    @contextmanager
    def scribe_asleep(self) -> Iterator[None]:
        """For so long, nobody reads the log."""
        assert self._scribe is not None
        self._scribe.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._scribe.send_signal(signal.SIGCONT)

    def _listens(self) -> bool:
        """The kernel knows where, even if the log cannot be written."""
        with suppress(psutil.NoSuchProcess):
            for found in psutil.Process(self.pid).net_connections("tcp"):
                if found.status == psutil.CONN_LISTEN:
                    self.address = TcpAddress(*found.laddr)
                    return True
        return False

    async def stop(self) -> int:
        """Tell it to stop; its exit status."""
        self._process.terminate()
        return await self.ended()

    async def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Wait for its end; its exit status."""
        await eventually(lambda: self._process.poll() is not None, PATIENCE)
        return self._process.returncode

    async def ask(self, model: str, kind: Kind, tokens: int, prompt: str = "count") -> Outcome:
        """One request, to its end."""
        return await Request(self.address, model, kind, tokens, prompt).run()

    async def status(self, model: str) -> Any:
        """What `/api/status` says of one model."""
        return await Llamasup(self.address, self.folder / "run").model_status(model)

    def children(self) -> dict[str, int]:
        """The pid of each model's child; the kernel knows them, whatever llamasup thinks."""
        found = {}
        for listing in Path(f"/proc/{self.pid}/task").glob("*/children"):
            for pid in map(int, _text(listing).split()):
                words = command_line(pid)
                if "--alias" in words:
                    found[words[words.index("--alias") + 1]] = pid
        return found

    async def child(self, model: str, other_than: int | None = None) -> int:
        """The pid of the child of `model`, waiting for one."""
        await eventually(lambda: self.children().get(model, other_than) != other_than)
        return self.children().get(model) or await self.child(model, other_than)

    def readies(self) -> list[Ready]:
        """Every child that ever became ready, in order."""
        return [
            Ready(datetime.fromisoformat(when.replace(",", ".")).timestamp(), model, int(pid))
            for when, model, pid in _READY.findall(self.log)
        ]

    async def orphans(self, known: Collection[int] = ()) -> set[int]:
        """Processes that are still there some time after llamasup's end, but for `known` ones."""
        with suppress(trio.TooSlowError):
            await eventually(lambda: not self._left() - set(known), PATIENCE)
        return self._left() - set(known)

    def _left(self) -> set[int]:
        """Whose command line names our folder is ours: the socket lies in it."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        folder = str(self.folder)
        return {pid for pid in pids if any(folder in word for word in command_line(pid))}

    def sweep(self) -> None:
        """Leave nothing behind on this machine, whatever went wrong."""
        for pid in self._left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if hasattr(self, "_process"):
            self._process.wait()
        if self._scribe:
            self._scribe.send_signal(signal.SIGCONT)
            self._scribe.wait()


@asynccontextmanager
async def started(subject: Subject) -> AsyncIterator[Subject]:
    """`subject`, running; whatever is left of it at the end of the block is swept away."""
    try:
        await subject.start()
        yield subject
    finally:
        subject.sweep()


def command_line(pid: int) -> list[str]:
    """A process's words; none if it is gone."""
    return _text(Path(f"/proc/{pid}/cmdline")).split("\0")


def has_open(pid: int, file: Path) -> bool:
    """Has it this file mapped into its memory?"""
    return str(file) in _text(Path(f"/proc/{pid}/maps"))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _nested(settings: Mapping[str, object]) -> dict[str, Any]:
    """A document from dotted keys."""
    document: dict[str, Any] = {}
    for key, value in settings.items():
        *tables, name = key.split(".")
        table = document
        for part in tables:
            table = table.setdefault(part, {})
        table[name] = value
    return document

"""What befalls a whole machine for a moment, while llamasup serves on it.

Threads and descriptors run short, nobody reads the log, the disk hangs, a stranger is killed for
memory. Whoever asks meanwhile is owed a clear answer; the right one only when the sky is clear.

It takes root (cgroups of processes and memory, a disk of its own); what a machine cannot do is
noted loudly, and the rest happens.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from random import Random

import psutil
import trio

from tests.chaos.stage import Stage
from tests.chaos.subject import LLAMASUP, Subject

_CGROUPS = Path("/sys/fs/cgroup")
_HOG = "b'x' * (1 << 30)"
_ROOM_OF_A_STRANGER = 64 << 20
_DISK = 64 << 20
_DISSOLVED_WITHIN = 10.0

Trouble = Callable[[Subject, Random], Awaitable[None]]


class Weather:
    """The troubles that this machine can have, and when there was one."""

    def __init__(self, disk: Path | None, threads: Path | None, stranger: Path | None) -> None:
        self._disk = disk
        self._threads = threads
        self._stranger = stranger
        self._storms = 0
        self._cleared = -math.inf

    def exposed(self, command: Sequence[str] = LLAMASUP) -> Sequence[str]:
        """The command, where its threads can be counted."""
        if self._threads is None:
            return command
        join = f'echo $$ > {self._threads}/cgroup.procs; exec "$@"'
        return ("sh", "-c", join, "sh", *command)

    def state_folder(self, name: str) -> dict[str, object]:
        """The setting by which what is learned lies on the disk that may hang."""
        return {"folders.state": str(self._disk / name)} if self._disk else {}

    @property
    def troubles(self) -> dict[str, Trouble]:
        """By name, those that can be had here."""
        return {
            "few descriptors": self._few_descriptors,
            "a log that nobody reads": self._deaf_log,
            **({"no more threads": self._no_more_threads} if self._threads else {}),
            **({"a disk that hangs": self._hanging_disk} if self._disk else {}),
            **({"a stranger killed for memory": self._strangers_end} if self._stranger else {}),
        }

    def was_clear_since(self, moment: float) -> bool:
        """Has there been no trouble since then?"""
        return not self._storms and self._cleared < moment

    async def rage(self, stage: Stage, subject: Subject, chance: Random) -> None:
        """One trouble after the other, until cancelled."""
        troubles = self.troubles
        while True:
            await trio.sleep(chance.uniform(0.3, 2.0))
            name = chance.choice(list(troubles))
            with self._storm():
                await troubles[name](subject, chance)
            stage.report.faults[name] += 1

    @contextmanager
    def _storm(self) -> Iterator[None]:
        self._storms += 1
        try:
            yield
        finally:
            self._storms -= 1
            self._cleared = trio.current_time()

    async def _few_descriptors(self, subject: Subject, chance: Random) -> None:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            process = psutil.Process(subject.pid)
            soft, hard = process.rlimit(resource.RLIMIT_NOFILE)
            process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + chance.randint(0, 6), hard))
            try:
                await trio.sleep(chance.uniform(0.05, 0.5))
            finally:
                with suppress(psutil.NoSuchProcess):
                    process.rlimit(resource.RLIMIT_NOFILE, (soft, hard))

    async def _deaf_log(self, subject: Subject, chance: Random) -> None:
        with subject.scribe_asleep():
            await trio.sleep(chance.uniform(0.1, 1.0))

    async def _no_more_threads(self, subject: Subject, chance: Random) -> None:
        assert self._threads is not None
        most = self._threads / "pids.max"
        most.write_text((self._threads / "pids.current").read_text())
        try:
            await trio.sleep(chance.uniform(0.05, 0.5))
        finally:
            most.write_text("max")

    async def _hanging_disk(self, subject: Subject, chance: Random) -> None:
        subprocess.run(["fsfreeze", "--freeze", str(self._disk)], check=True)
        try:
            await trio.sleep(chance.uniform(0.1, 1.0))
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", str(self._disk)], check=True)

    async def _strangers_end(self, subject: Subject, chance: Random) -> None:
        """The kernel kills somebody else for memory. Children that die then did not run out."""
        join = f'echo $$ > {self._stranger}/cgroup.procs; exec "$@"'
        done = await trio.run_process(
            ["sh", "-c", join, "sh", sys.executable, "-c", _HOG],
            check=False,
            capture_stderr=True,
        )
        assert done.returncode == -signal.SIGKILL, done


@asynccontextmanager
async def weather(stage: Stage) -> AsyncIterator[Weather]:
    """The weather of one run; nothing of it is left on the machine afterwards."""
    with _disk(stage) as disk, _cgroup("pids") as threads, _cgroup("memory") as stranger:
        if stranger is not None:
            _limit_memory(stranger, _ROOM_OF_A_STRANGER)
        made = Weather(disk, threads, stranger)
        if len(made.troubles) < 5:
            stage.report.note(f"NOT RUN: other troubles than {', '.join(made.troubles)} take root")
        yield made


@contextmanager
def _disk(stage: Stage) -> Iterator[Path | None]:
    """A small disk of its own."""
    image, folder = stage.folder / "disk.img", stage.folder / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(_DISK)
    made = os.geteuid() == 0 and all(
        subprocess.run(command, capture_output=True, check=False).returncode == 0
        for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, folder])
    )
    try:
        yield folder if made else None
    finally:
        if made:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def _cgroup(controller: str) -> Iterator[Path | None]:
    """A cgroup of our own; processes that are in it at the end go back to where we are."""
    base = _CGROUPS / controller if (_CGROUPS / controller).is_dir() else _CGROUPS
    group = base / f"llamasup-chaos-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        usable = any((group / name).exists() for name in (f"{controller}.max", _V1_MEMORY))
        yield group if usable else None
    finally:
        _dissolve(group, base)


def _dissolve(group: Path, base: Path) -> None:
    """Those that are ending stay in it until the kernel has forgotten them."""
    deadline = time.monotonic() + _DISSOLVED_WITHIN
    while True:
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (base / "cgroup.procs").write_text(pid)
        try:
            return group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


_V1_MEMORY = "memory.limit_in_bytes"


def _limit_memory(group: Path, size: int) -> None:
    for name in ("memory.max", _V1_MEMORY):
        if (group / name).exists():
            (group / name).write_text(str(size))
    if (group / "memory.swap.max").exists():
        (group / "memory.swap.max").write_text("0")

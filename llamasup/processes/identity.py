"""The identity of a process: its pid, and when it started.

A pid alone is given to another process one day. Pid and start time together name one process for
ever. They are also the name of the mark that a run folder has for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import frozen

MARK: Final = "child-"
"""The beginning of the names of marks. A mark in a run folder stands for a child."""


@frozen
class Identity:
    """The identity of one process. A later process with the same pid has another identity."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of the process with this pid. None if there is none, or it is a zombie."""
        try:
            started = _start_time(pid)
        except (OSError, subprocess.SubprocessError, IndexError, ValueError):
            return None
        return cls(pid, started) if started else None

    @classmethod
    def marked(cls, name: str) -> Identity | None:
        """The process that a mark of this name stands for; None if the name is not a mark's."""
        pid, _, started = name.removeprefix(MARK).partition("-")
        return cls(int(pid), started) if pid.isdecimal() else None

    @property
    def mark(self) -> str:
        """The name of the process's mark."""
        return f"{MARK}{self.pid}-{self.started}"

    def alive(self) -> bool:
        """Does this process still run, and not another one with its pid?"""
        return Identity.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Signal the process and its group. If it is gone, nothing happens."""
        if self.alive():
            for send in (os.killpg, os.kill):
                # On macOS it is forbidden to signal a zombie.
                with suppress(ProcessLookupError, PermissionError):
                    send(self.pid, number)


def _start_time(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        # The process's name before the last ")" may hold anything; state is field 3, start time 22.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    listing = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return "_".join(listing.stdout.split())

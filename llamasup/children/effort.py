"""How much the processes of a child have computed: a child that computes has not stopped.

All processes that the child has started count: the child itself may be a script that starts the
engine. A child that waits for its GPU needs no processor; where the kernel knows how long a GPU has
worked for a process (`fdinfo` of AMD's and Intel's drivers), that counts as well. NVIDIA's driver
does not say, but there the waiting itself keeps a processor busy.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from llamasup import threads
from llamasup.children.probe import NotAsked

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PS_PATIENCE: Final = 5.0
_CLIENT = re.compile(rb"^drm-client-id:\s*(\d+)", re.MULTILINE)
_DEVICE = re.compile(rb"^drm-pdev:\s*(\S+)", re.MULTILINE)
_ENGINE = re.compile(rb"^drm-engine-(?!capacity)\S+:\s*(\d+) ns", re.MULTILINE)


async def spent(session: int) -> float | None:
    """Seconds that all processes of this setsid(2) group have computed; None if not known.

    To look at every process of the machine takes some milliseconds, so a thread does it. Raises
    NotAsked if there can be no thread. If this is cancelled, the thread goes on by itself.
    """
    try:
        return await threads.run(spent_by, session)
    except OSError as error:
        raise NotAsked(error.strerror) from error


def spent_by(session: int, proc: Path = _PROC) -> float | None:
    """The same, without a thread."""
    if not (proc / "self" / "stat").exists():
        return _effort_by_ps(session)
    found = [(process, fields) for process, fields in _processes(proc) if int(fields[3]) == session]
    # User and system time of the process, and of those of its children that it has waited for.
    seconds = sum(int(ticks) for _, fields in found for ticks in fields[11:15]) / _TICKS
    return seconds + _on_gpus([process for process, _ in found])


def _processes(proc: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """Each process, and the fields of its `stat` from the state on."""
    for name in os.listdir(proc):
        if name.isdecimal():
            with suppress(OSError):  # gone meanwhile
                # The process's name, before the last ")", may hold anything.
                yield proc / name, (proc / name / "stat").read_bytes().rpartition(b")")[2].split()


def _on_gpus(processes: list[Path]) -> float:
    """Seconds on all engines of all GPUs. A client of a device counts once, in however many
    files."""
    clients: dict[tuple[bytes, bytes], int] = {}
    for process in processes:
        with suppress(OSError):
            for file in (process / "fdinfo").iterdir():
                with suppress(OSError):
                    told = file.read_bytes()
                    if (client := _CLIENT.search(told)) and (device := _DEVICE.search(told)):
                        clients[device[1], client[1]] = sum(map(int, _ENGINE.findall(told)))
    return sum(clients.values()) / 1e9


def _effort_by_ps(session: int) -> float | None:
    """The same where there is no /proc. A session's first process leads its group, too."""
    try:
        listing = subprocess.run(
            ["ps", "-A", "-o", "pgid=,time="],
            capture_output=True,
            text=True,
            check=True,
            timeout=_PS_PATIENCE,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split() for line in listing.splitlines()]
    return sum(_seconds(time) for group, time in rows if int(group) == session)


def _seconds(time: str) -> float:
    """What ps says: "1-02:03:04", "02:03:04" or "3:04.05"."""
    days, _, rest = time.rpartition("-")
    seconds = 0.0
    for part in rest.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds + int(days or 0) * 86_400

"""The engine, started by hand: how long it takes by itself, and what it needs and says."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

_STEP = 12 << 20


@frozen
class Start:
    """How one start went."""

    seconds: float
    """From its spawning until it listened, or was gone."""

    listened: bool
    address_space: int
    """The most that it has mapped so far, in bytes; 0 if it is gone."""

    log: str


@frozen
class Launch:
    """How llamasup starts a child: its own words and environment."""

    argv: Sequence[str]
    environment: Mapping[str, str]

    @classmethod
    def of(cls, pid: int) -> Launch:
        """As this living child was started."""
        variables = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
        return cls(
            Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0"),
            dict(variable.split("=", 1) for variable in variables),
        )


def start(launch: Launch, folder: Path, limit: int | None = None) -> Start:
    """Start the engine as that child was, on a socket in `folder`; end it when it listens."""
    words = list(launch.argv)
    address = folder / "by-hand.sock"
    address.unlink(missing_ok=True)
    words[words.index("--host") + 1] = str(address)
    if limit is not None:
        words = ["prlimit", f"--as={limit}", *words]
    began = time.perf_counter()
    # Its stdin stays open: an engine in child mode ends with it.
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=launch.environment,
    ) as engine:
        assert engine.stderr is not None
        log = ""
        for line in engine.stderr:
            log += line
            if "listening on" in line:
                break
        seconds = time.perf_counter() - began
        listened = "listening on" in log
        peak = _peak(engine.pid) if listened else 0
        engine.kill()
    return Start(seconds, listened, peak, log)


def limit_without_room_for_weights(launch: Launch, folder: Path) -> int:
    """A limit of its address space under which the weights do not fit, but what precedes them.

    The weights are several steps large. Two steps below the limit at which they begin to fail
    there is room for what differs from start to start.
    """
    limit = start(launch, folder).address_space
    while limit > _STEP:
        limit -= _STEP
        if "error loading model: unable to allocate" in start(launch, folder, limit).log:
            return limit - 2 * _STEP
    raise AssertionError("no limit makes the weights fail")


def _peak(pid: int) -> int:
    found = re.search(r"VmPeak:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0

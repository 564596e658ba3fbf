"""What is tied to us ends with us, whatever it does; what is loosened may see its stdin end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llamasup.processes.lifeline import Lifeline
from tests.harness import eventually, is_alive, out_of_descriptors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no F_SETSIG")

DEAF = "trap '' TERM INT HUP; sleep 600 & echo $!; wait"
"""Neither it nor what it has started looks at its stdin."""

LISTENS = "echo 0; cat > /dev/null; exit 7"


@contextmanager
def process(lifeline: Lifeline, script: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process with this stdin, and the one that it has started."""
    with subprocess.Popen(
        ["/bin/sh", "-c", script],
        stdin=lifeline.made(),
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_tied_process_ends_with_all_that_it_has_started_when_it_is_let_go() -> None:
    lifeline = Lifeline()
    with process(lifeline, DEAF) as (deaf, started):
        lifeline.tie(deaf.pid)
        assert is_alive(started)
        lifeline.let_go()
        assert deaf.wait(5) == -signal.SIGKILL
        await eventually(lambda: not is_alive(started))


def test_a_process_that_is_untied_only_sees_its_stdin_end() -> None:
    lifeline = Lifeline()
    with process(lifeline, LISTENS) as (listens, _):
        lifeline.tie(listens.pid)
        lifeline.loosen()
        lifeline.let_go()
        assert listens.wait(5) == 7


def test_nothing_stays_open() -> None:
    before = open_files()
    lifeline = Lifeline()
    lifeline.let_go()
    with process(lifeline, LISTENS) as (listens, _):
        lifeline.tie(listens.pid)
        for _ in range(2):
            lifeline.loosen()
            lifeline.let_go()
        listens.wait(5)
    assert open_files() == before


def test_without_descriptors_there_is_none() -> None:
    with out_of_descriptors(), pytest.raises(OSError, match="Too many open files"):
        Lifeline().made()

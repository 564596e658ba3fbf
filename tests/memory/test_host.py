"""What the host says about memory, against what is really so on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from llamasup.memory.host import anonymous_memory, free_memory, oom_kills

NOBODY = 2**22 + 1  # above the highest pid that Linux gives


def test_free_memory_is_no_more_than_the_machine_has() -> None:
    assert 0 < free_memory() <= psutil.virtual_memory().total


def test_a_process_that_holds_more_memory_is_seen_to() -> None:
    hold = "import sys; held = b'x' * (64 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        held = anonymous_memory(process.pid)
        process.kill()
    assert held > 64 << 20
    assert held < 256 << 20


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert anonymous_memory(NOBODY) == 0
    assert anonymous_memory(os.getpid()) > 0


def test_the_kernels_kills_are_counted_and_do_not_grow_by_themselves() -> None:
    assert oom_kills() == oom_kills() >= 0

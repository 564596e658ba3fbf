"""Orphans are reaped, and trio's own children are not stolen from it.

Run in a process of its own that is a "subreaper": orphans end up with it as with process 1.
"""

from __future__ import annotations

import os
import subprocess
import sys

from llamasup.pid1 import zombies
from tests.harness import oddly_named, out_of_descriptors

SCRIPT = """
import ctypes, os, subprocess, sys
import trio
from llamasup.pid1 import reap_orphans, zombies

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reap_orphans)
        # A shell that leaves a grandchild behind, which then ends.
        orphan = await trio.run_process("sleep 0.3 & echo $!", shell=True, capture_stdout=True)
        pid = int(orphan.stdout)
        with trio.fail_after(10):
            while os.path.exists(f"/proc/{pid}"):
                own = await trio.run_process([sys.executable, "-c", "exit(7)"], check=False)
                assert own.returncode == 7
        assert not zombies()
        nursery.cancel_scope.cancel()

trio.run(main)
print("all reaped")
"""


def test_an_orphan_is_reaped_and_own_children_keep_their_exit_status() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "all reaped\n", done.stderr


def test_a_zombie_may_have_a_name_that_is_no_text() -> None:
    with oddly_named() as process:
        assert process.pid not in zombies()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.pid in zombies()


def test_without_descriptors_no_zombie_is_seen() -> None:
    with out_of_descriptors():
        assert zombies() == set()

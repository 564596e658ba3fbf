"""What the host says about memory, against what is really so on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamasup.memory.host import (
    OomKills,
    anonymous_memory,
    family,
    forget_peak,
    most_resident,
    oom_kills,
)
from llamasup.memory.readings import kill_counters
from tests.harness import oddly_named

NOBODY = 2**22 + 1  # above the highest pid that Linux gives


def test_the_most_that_a_process_held_is_known_until_it_is_to_be_forgotten() -> None:
    hold = "import sys; held = b'x' * (64 << 20); del held; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        at_most = most_resident(process.pid)
        forget_peak(process.pid)
        since_then = most_resident(process.pid)
        process.kill()
    assert 64 << 20 < at_most < 256 << 20
    assert at_most - since_then > 60 << 20


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


def test_what_a_script_starts_counts_as_its_own() -> None:
    hold = "import sys; held = b'x' * (64 << 20); print(flush=True); sys.stdin.read()"
    script = f'{sys.executable} -c "{hold}"; exit $?'
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        held, at_most = anonymous_memory(process.pid), most_resident(process.pid)
        relatives = family(process.pid)
        process.stdin.close()
        process.wait()
    assert len(relatives) == 2
    assert 64 << 20 < held <= at_most < 256 << 20


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert anonymous_memory(NOBODY) == 0
    assert most_resident(NOBODY) == 0
    forget_peak(NOBODY)
    assert anonymous_memory(os.getpid()) > 0


def test_the_kernels_kills_are_counted_and_do_not_grow_by_themselves() -> None:
    assert oom_kills() == oom_kills() >= 0


def test_a_process_may_have_a_name_that_is_no_text() -> None:
    with oddly_named() as process:
        assert anonymous_memory(process.pid) > 0
        assert most_resident(process.pid) > 0


def test_a_kill_explains_a_death_for_seconds_and_not_for_weeks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 7
    monkeypatch.setattr("llamasup.memory.host.oom_kills", lambda: count)
    kills = OomKills()
    assert not kills.just_now(0.0), "those before it are nobody's"
    count = 8
    assert kills.just_now(3.0)
    assert kills.just_now(8.0), "a large process takes its time to go"
    week = 7 * 24 * 3600.0
    assert not kills.just_now(week)
    count = 9
    kills.look(week + 5)
    assert kills.just_now(week + 6)
    assert not kills.just_now(week + 60)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"own/memory.events": "low 0\noom 3\noom_kill 2\n", "memory.events": "oom_kill 9\n"}, 2),
        ({"memory.events": "oom_kill 9\n"}, 9),
        ({"own/memory.oom_control": "under_oom 0\noom_kill 4\n"}, 4),
        ({"own/memory.oom_control": "under_oom 0\n"}, 70),
        ({}, 70),
    ],
    ids=["own", "container", "v1", "old v1", "the machine's"],
)
def test_the_nearest_counter_is_asked(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    folders = [str(tmp_path / "own"), str(tmp_path)]
    monkeypatch.setattr("llamasup.memory.readings.cgroup_folders", lambda _: folders)
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 70\n")
    monkeypatch.setattr("llamasup.memory.host._VMSTAT", tmp_path / "vmstat")
    kill_counters.cache_clear()
    try:
        assert oom_kills() == expected
    finally:
        kill_counters.cache_clear()

"""What the processes of a session have computed, by real processes and by drivers' files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from llamasup.children import effort
from llamasup.children.probe import NotAsked

SPIN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


@contextmanager
def session(script: str) -> Iterator[int]:
    """A session of its own, by the number of its first process, which has done its work."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{script}\nprint(flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


async def test_a_process_that_computes_is_told_from_one_that_waits() -> None:
    with session(SPIN) as busy:
        first = await effort.spent(busy)
        assert first is not None
        assert first >= 0.3
        assert await effort.spent(busy) == first


async def test_what_it_has_started_counts_as_its_own() -> None:
    with session(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SPIN!r}])"
    ) as pid:
        by_proc = await effort.spent(pid)
        assert by_proc is not None
        assert by_proc >= 0.3


async def test_a_session_that_is_gone_has_computed_nothing() -> None:
    with session("") as pid:
        pass
    assert await effort.spent(pid) == 0


def test_where_there_is_no_proc_ps_is_asked(tmp_path: Path) -> None:
    with session(SPIN.replace("0.3", "1.1")) as pid:
        assert effort.spent_by(pid, tmp_path) == pytest.approx(1, abs=1)
        assert effort.spent_by(pid, tmp_path) != 0


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("0:00.12", 0.12), ("3:04.50", 184.5), ("02:03:04", 7384), ("1-00:00:01", 86_401)],
)
def test_times_are_read_as_any_ps_writes_them(time: str, seconds: float) -> None:
    assert effort._seconds(time) == pytest.approx(seconds)


def test_the_work_of_a_gpu_counts_once_for_each_client_of_it(tmp_path: Path) -> None:
    stat = f"7 (a ) b) S 1 7 7 {' '.join(['0'] * 40)}"
    told = "drm-pdev:\t0000:03:00.0\ndrm-client-id:\t{}\ndrm-engine-gfx:\t1500000000 ns\n"
    files = {
        "self/stat": "",
        "7/stat": stat,
        "7/fdinfo/3": told.format(5) + "drm-engine-capacity-gfx:\t2\n",
        "7/fdinfo/4": told.format(5),
        "7/fdinfo/5": told.format(6) + "drm-engine-compute:\t250000000 ns\n",
        "7/fdinfo/6": "pos:\t0\n",
        "8/stat": stat.replace(" 7 7 ", " 8 8 "),
        "8/fdinfo/3": told.format(9),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert effort.spent_by(7, tmp_path) == pytest.approx(1.5 + 1.5 + 0.25)


async def test_without_a_thread_no_process_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run_sync(function: object, session: int, **how: object) -> float:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    with pytest.raises(NotAsked, match="temporarily unavailable"):
        await effort.spent(os.getpid())

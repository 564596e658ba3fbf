"""A machine is asked for its memory: recorded ones, and the one that we run on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from attrs import evolve, field, frozen

from llamasup.memory.cards import (
    Card,
    Maker,
)
from llamasup.memory.machine import ThisMachine, cards, host, physical_memory
from llamasup.memory.readings import (
    HOST,
    Device,
    Kind,
)
from tests.harness import eventually, out_of_descriptors
from tests.memory.recorded import NVMLError, nvml, recorded

KIB, MIB, GIB = 2**10, 2**20, 2**30
MEMINFO_TOTAL, MEMINFO_AVAILABLE = 24684092 * KIB, 23962976 * KIB


@frozen
class Recorded:
    """A machine whose tools answer as recorded, and that has no others."""

    tools: dict[str, str] = field(factory=dict)
    files: dict[str, str] = field(factory=dict)
    library: list[Card] = field(factory=list)

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        return recorded(self.tools[command[0]]) if command[0] in self.tools else ""

    async def read(self, *patterns: str) -> Mapping[str, str]:
        return {
            path: text
            for path, text in self.files.items()
            if any(fnmatch(path, pattern) for pattern in patterns)
        }

    async def nvml(self) -> list[Card]:
        return self.library


TOP = "/sys/fs/cgroup"
LIMIT_V2 = {f"{TOP}/memory.max": f"{8 * GIB}\n", f"{TOP}/memory.current": f"{3 * GIB}\n"}
LIMIT_V1 = {
    f"{TOP}/memory/memory.limit_in_bytes": f"{8 * GIB}\n",
    f"{TOP}/memory/memory.usage_in_bytes": f"{3 * GIB}\n",
}


def linux(**files: str) -> dict[str, str]:
    return {"/proc/meminfo": recorded("meminfo"), "/proc/self/cgroup": "0::/\n", **files}


RX6800 = {
    "/sys/class/drm/card1/device/mem_info_vram_total": "17163091968\n",
    "/sys/class/drm/card1/device/mem_info_vram_used": "692142080\n",
}


# Whole machines

LINUX_HOST = Device(HOST, Kind.HOST, MEMINFO_TOTAL, MEMINFO_AVAILABLE)


async def test_a_machine_without_any_gpu_has_its_host() -> None:
    complaining = {"nvidia-smi": "nvidia_smi_no_driver", "rocm-smi": "rocm_smi_nothing"}
    assert await host(Recorded({}, linux())) == [LINUX_HOST]
    assert await host(Recorded(complaining, linux())) == [LINUX_HOST]


async def test_a_machine_that_tells_nothing_has_nothing() -> None:
    assert await host(Recorded()) == []


async def test_gpus_of_two_makers_stand_side_by_side() -> None:
    machine = Recorded({"nvidia-smi": "nvidia_smi_4070"}, {**linux(), **RX6800})
    assert [(card.maker, card.free) for card in await cards(machine)] == [
        (Maker.NVIDIA, 631 * MIB),
        (Maker.AMD, 17163091968 - 692142080),
    ]


async def test_amds_tool_is_asked_where_the_driver_has_no_files() -> None:
    machine = Recorded({"rocm-smi": "rocm_smi_7900xt"}, linux())
    assert [card.label for card in await cards(machine)] == ["Radeon RX 7900 XT"]


async def test_nvidias_library_is_believed_before_its_tool() -> None:
    gpu = Card(Maker.NVIDIA, 0, 8, 5)
    machine = Recorded({"nvidia-smi": "nvidia_smi_4xa800"}, linux(), [gpu])
    assert await cards(machine) == [gpu]


async def test_a_container_has_no_more_than_its_limit() -> None:
    files = linux(**LIMIT_V1)
    files["/proc/self/cgroup"] = recorded("cgroup_v1_container")
    assert await host(Recorded({}, files)) == [Device(HOST, Kind.HOST, 8 * GIB, 5 * GIB)]


async def test_a_mac_is_one_memory() -> None:
    (mac,) = await host(Recorded({"sysctl": "sysctl_m1", "vm_stat": "vm_stat_m1"}))
    assert (mac.name, mac.kind) == (HOST, Kind.APPLE)


# This machine

PYTHON = sys.executable


async def test_what_a_tool_prints_counts_however_it_ends() -> None:
    assert await ThisMachine().run(PYTHON, "-c", "print('words'); exit(6)") == f"words{os.linesep}"


async def test_a_tool_sees_the_environment_that_it_is_given() -> None:
    words = "import os; print(os.environ['WORDS'])"
    machine = ThisMachine()
    assert "here" in await machine.run(PYTHON, "-c", words, environment={"WORDS": "here"})


async def test_a_tool_that_is_not_there_says_nothing() -> None:
    assert await ThisMachine().run("/nowhere/nvidia-smi") == ""


async def test_a_tool_that_hangs_is_ended_and_has_said_nothing() -> None:
    hang = "import sys, time; print('words', flush=True); time.sleep(600)"
    with trio.fail_after(30):
        assert await ThisMachine(patience=0.5).run(PYTHON, "-c", hang) == ""


async def test_a_tool_that_hangs_is_taken_at_its_last_word(tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    tool = f"test -e {hangs} && exec sleep 600; echo words"
    machine = ThisMachine(patience=0.5)
    assert await machine.run("/bin/sh", "-c", tool) == "words\n"
    hangs.touch()
    with trio.fail_after(10):
        assert await machine.run("/bin/sh", "-c", tool) == "words\n"


async def test_a_tool_that_hangs_in_its_driver_delays_no_task_and_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamasup.processes.process.Process.signal", lambda *_: None)
    monkeypatch.setattr("llamasup.processes.asking._DEATH_PATIENCE", 0.2)
    pids = tmp_path / "pids"
    machine = ThisMachine(patience=0.5)
    try:
        with trio.fail_after(5):  # half of 20 times our patience
            for _ in range(20):
                assert (
                    await machine.run("/bin/sh", "-c", f"echo $$ >> {pids}; exec sleep 600") == ""
                )
        assert len(pids.read_text().split()) == 1
    finally:
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)


async def test_a_tool_on_a_disk_that_hangs_is_taken_at_its_last_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = ThisMachine(patience=0.5)
    assert await machine.run("/bin/sh", "-c", "echo words") == "words\n"
    answers = threading.Event()
    monkeypatch.setattr("llamasup.memory.machine.shutil.which", lambda tool: answers.wait())
    try:
        with trio.fail_after(5):  # half of 20 times our patience
            for _ in range(20):
                assert await machine.run("/bin/sh", "-c", "echo words") == "words\n"
    finally:
        answers.set()


async def test_a_shortage_of_ours_takes_no_gpu_away(tmp_path: Path) -> None:
    machine = ThisMachine()
    assert await machine.run("/bin/sh", "-c", "echo words") == "words\n"
    with out_of_descriptors():
        assert await machine.run("/bin/sh", "-c", "echo words") == "words\n"


async def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "card0").write_text("8\n")
    (tmp_path / "card1").mkdir()
    found = await ThisMachine().read(f"{tmp_path}/card*", f"{tmp_path}/none")
    assert found == {f"{tmp_path}/card0": "8\n"}


async def test_nvidias_library_may_be_missing_or_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert await ThisMachine().nvml() == []
    monkeypatch.setitem(sys.modules, "pynvml", nvml([SimpleNamespace(total=8, free=5)]))
    assert await ThisMachine().nvml() == [Card(Maker.NVIDIA, 0, 8, 5, "some GPU", "GPU-0")]


async def test_nvidias_library_without_a_driver_knows_no_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise NVMLError("Driver Not Loaded")

    library = nvml([])
    library.nvmlInit = fail
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert await ThisMachine().nvml() == []


async def test_a_driver_that_hangs_takes_one_thread_and_no_gpu_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = Card(Maker.NVIDIA, 0, 8, 5, "some GPU", "GPU-0")
    library = nvml([SimpleNamespace(total=8, free=5)])
    monkeypatch.setitem(sys.modules, "pynvml", library)
    machine = ThisMachine(patience=0.2)
    assert await machine.nvml() == [gpu]

    answers, asked = threading.Event(), []

    def hang() -> None:
        asked.append(threading.get_ident())
        answers.wait()

    library.nvmlInit = hang
    try:
        with trio.fail_after(5):  # a fraction of 50 times our patience
            for _ in range(50):
                assert await machine.nvml() == [gpu]
        assert len(asked) == 1
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        answers.set()
    library.nvmlDeviceGetMemoryInfo = lambda gpu: SimpleNamespace(total=8, free=1)

    async def is_asked_again() -> bool:
        return await machine.nvml() == [evolve(gpu, free=1)]

    await eventually(is_asked_again)


async def test_a_silent_tool_is_taken_at_its_last_word_in_the_same_environment_alone(
    tmp_path: Path,
) -> None:
    hangs = tmp_path / "hangs"
    tool = f"test -e {hangs} && exec sleep 600; echo $SHOWN"
    machine = ThisMachine(patience=0.5)
    assert await machine.run("/bin/sh", "-c", tool, environment={"SHOWN": "0"}) == "0\n"
    hangs.touch()
    assert await machine.run("/bin/sh", "-c", tool, environment={"SHOWN": "1"}) == ""


async def test_all_that_the_host_has_is_known_within_limits_too() -> None:
    machine = Recorded({}, linux(**LIMIT_V2))
    assert await physical_memory(machine) == MEMINFO_TOTAL
    assert await physical_memory(Recorded()) == 0


async def test_the_host_that_we_run_on_has_memory() -> None:
    [ours] = await host(ThisMachine())
    assert ours.name == HOST
    assert 0 < ours.free <= ours.total

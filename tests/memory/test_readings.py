"""What files and tools say of memory is read from their recorded answers."""

from __future__ import annotations

import pytest

from llamasup.memory.readings import (
    HOST,
    Device,
    Kind,
    cgroup_folders,
    parse_meminfo,
    parse_sysctl,
    parse_vm_stat,
)
from tests.memory.recorded import recorded

KIB, GIB = 2**10, 2**30
MEMINFO_TOTAL, MEMINFO_AVAILABLE = 24684092 * KIB, 23962976 * KIB


# Macs


@pytest.mark.parametrize(
    ("sysctl", "vm_stat", "kind", "total", "pages"),
    [
        ({}, "vm_stat_m1", Kind.APPLE, 16 * GIB * 2 // 3, 129780 + 273368 + 7622),
        ({"iogpu.wired_limit_mb": 14336}, "vm_stat_m1", Kind.APPLE, 14 * GIB, 410770),
        ({"hw.memsize": 48 * GIB}, "vm_stat_large", Kind.APPLE, 36 * GIB, 101836 + 1075975 + 9442),
        ({"hw.optional.arm64": 0}, "vm_stat_m1", Kind.HOST, 16 * GIB, 410770),
    ],
)
def test_on_apple_silicon_all_share_one_memory_of_which_the_gpu_has_a_part(
    sysctl: dict[str, int], vm_stat: str, kind: Kind, total: int, pages: int
) -> None:
    numbers = {**parse_sysctl(recorded("sysctl_m1")), **sysctl}
    assert parse_vm_stat(recorded(vm_stat), numbers) == [
        Device(HOST, kind, total, min(pages * 16384, total))
    ]


def test_names_that_a_mac_does_not_know_are_no_numbers() -> None:
    assert parse_sysctl(recorded("sysctl_intel")) == {"hw.memsize": 16 * GIB}
    assert parse_sysctl("") == {}


# Linux and its containers

TOP = "/sys/fs/cgroup"
V2 = {"memory.max": f"{8 * GIB}\n", "memory.current": f"{3 * GIB}\n"}
V1 = {"memory.limit_in_bytes": f"{8 * GIB}\n", "memory.usage_in_bytes": f"{3 * GIB}\n"}


def limits(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "total", "free"),
    [
        ({}, MEMINFO_TOTAL, MEMINFO_AVAILABLE),
        (limits(TOP, V2), 8 * GIB, 5 * GIB),
        (limits(TOP, {**V2, "memory.max": "max\n"}), MEMINFO_TOTAL, MEMINFO_AVAILABLE),
        (limits(TOP, {**V2, "memory.max": f"{64 * GIB}\n"}), MEMINFO_TOTAL, MEMINFO_AVAILABLE),
        (limits(TOP, {**V2, "memory.current": f"{9 * GIB}\n"}), 8 * GIB, 0),
        (
            limits(TOP, {**V2, "memory.stat": f"file 9\nactive_file 7\ninactive_file {GIB}\n"}),
            8 * GIB,
            6 * GIB + 7,
        ),
        (limits(f"{TOP}/memory", V1), 8 * GIB, 5 * GIB),
        (
            limits(f"{TOP}/memory", {**V1, "memory.limit_in_bytes": "9223372036854771712\n"}),
            MEMINFO_TOTAL,
            MEMINFO_AVAILABLE,
        ),
        (
            limits(
                f"{TOP}/memory",
                {
                    **V1,
                    "memory.stat": "active_file 3\ninactive_file 5\n"
                    f"total_active_file 0\ntotal_inactive_file {GIB}\n",
                },
            ),
            8 * GIB,
            6 * GIB,
        ),
        (
            {**limits(f"{TOP}/a", {**V2, "memory.max": "max\n"}), **limits(f"{TOP}/a/b", V2)},
            8 * GIB,
            5 * GIB,
        ),
    ],
)
def test_the_host_has_what_the_machine_has_or_the_tightest_limit_leaves(
    files: dict[str, str], total: int, free: int
) -> None:
    assert parse_meminfo(recorded("meminfo"), files) == [Device(HOST, Kind.HOST, total, free)]


def test_a_system_that_does_not_tell_has_no_host_memory_to_plan_with() -> None:
    assert parse_meminfo("", {}) == []


@pytest.mark.parametrize(
    ("recording", "folders"),
    [
        ("cgroup_v2_container", [TOP]),
        (
            "cgroup_v2_service",
            [f"{TOP}/system.slice/llamasup.service", f"{TOP}/system.slice", TOP],
        ),
        (
            "cgroup_v1_container",
            [f"{TOP}/memory/docker/0a1b2c", f"{TOP}/memory/docker", f"{TOP}/memory", TOP],
        ),
    ],
)
def test_limits_are_looked_for_on_every_level(recording: str, folders: list[str]) -> None:
    assert cgroup_folders(recorded(recording)) == folders

"""The vendors' tools' recorded answers, read also where they complain."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from attrs import evolve

from llamasup.memory.cards import (
    Card,
    Maker,
    parse_amd_sysfs,
    parse_nvidia_smi,
    parse_rocm_smi,
    read_nvml,
)
from tests.memory.recorded import NVMLError, NVMLError_NotSupported, nvml, recorded

MIB, GIB = 2**20, 2**30


def nvidia(index: int, total: int, free: int, label: str) -> Card:
    return Card(Maker.NVIDIA, index, total, free, label, f"GPU-{index}")


# NVIDIA


@pytest.mark.parametrize(
    ("recording", "found"),
    [
        (
            "nvidia_smi_4070",
            [nvidia(0, 12282 * MIB, 631 * MIB, "NVIDIA GeForce RTX 4070")],
        ),
        (
            "nvidia_smi_lost",
            [nvidia(1, 24576 * MIB, 23994 * MIB, "NVIDIA GeForce RTX 3090")],
        ),
        ("nvidia_smi_gb10", [evolve(nvidia(0, 0, 0, "NVIDIA GB10"), own_memory=False)]),
        ("nvidia_smi_no_driver", []),
        ("nvidia_smi_no_gpu", []),
        ("nvidia_smi_mismatch", []),
    ],
)
def test_nvidia_smi_is_read_also_where_it_complains(recording: str, found: list[Card]) -> None:
    assert parse_nvidia_smi(recorded(recording)) == found


def test_several_gpus_are_several_cards() -> None:
    found = parse_nvidia_smi(recorded("nvidia_smi_4xa800"))
    assert [card.uuid for card in found] == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    assert {card.free for card in found} == {81176 * MIB}


@pytest.mark.parametrize("complaint", ["[Insufficient Permissions]", "[Unknown Error]"])
def test_a_card_that_may_not_be_asked_is_not_one_without_memory_of_its_own(complaint: str) -> None:
    row = f"0, GPU-0, NVIDIA A100-SXM4-40GB, {complaint}, {complaint}"
    assert parse_nvidia_smi(row) == []


def test_windows_ends_its_lines_in_its_own_way() -> None:
    text = recorded("nvidia_smi_4070").replace("\n", "\r\n")
    assert parse_nvidia_smi(text) == parse_nvidia_smi(recorded("nvidia_smi_4070"))


def test_nvml_tells_the_same_and_a_lost_gpu_hides_no_other() -> None:
    library = nvml(
        [NVMLError("GPU is lost"), SimpleNamespace(total=8, free=5), NVMLError_NotSupported()]
    )
    assert read_nvml(library) == [
        nvidia(1, 8, 5, "some GPU"),
        evolve(nvidia(2, 0, 0, "some GPU"), own_memory=False),
    ]


# AMD


@pytest.mark.parametrize(
    ("recording", "found"),
    [
        (
            "rocm_smi_7900xt",
            [Card(Maker.AMD, 0, 21458059264, 21458059264 - 27856896, "Radeon RX 7900 XT")],
        ),
        (
            "rocm_smi_warned",
            [
                Card(
                    Maker.AMD,
                    0,
                    17163091968,
                    17163091968 - 692142080,
                    "Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]",
                ),
                Card(Maker.AMD, 1, 67108864, 67108864 - 26079232, "Raphael"),
            ],
        ),
        (
            "rocm_smi_old",
            [Card(Maker.AMD, 0, 25753026560, 25753026560 - 12876513280, "Radeon RX 7900 XTX")],
        ),
        ("rocm_smi_nothing", []),
    ],
)
def test_rocm_smi_is_read_also_where_it_warns(recording: str, found: list[Card]) -> None:
    assert parse_rocm_smi(recorded(recording)) == found


def test_the_tenth_card_comes_after_the_ninth() -> None:
    files = {
        f"/sys/class/drm/card{card}/device/mem_info_vram_{what}": f"{size}\n"
        for card in (10, 9)
        for what, size in (("total", card * GIB), ("used", GIB))
    }
    found = parse_amd_sysfs(files)
    assert [(card.index, card.total, card.free) for card in found] == [
        (0, 9 * GIB, 8 * GIB),
        (1, 10 * GIB, 9 * GIB),
    ]


def test_a_card_of_which_only_half_can_be_read_is_left_out() -> None:
    assert parse_amd_sysfs({"/sys/class/drm/card0/device/mem_info_vram_total": "1\n"}) == []

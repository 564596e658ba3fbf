"""The devices are those that the engine lists, under its names."""

from __future__ import annotations

import pytest

from llamasup.engine.devices import devices_in
from llamasup.memory.readings import Device, Kind
from tests.memory.recorded import recorded

MIB = 2**20


def listed(name: str, text: str | None = None) -> list[Device]:
    devices = devices_in(text or recorded(name))
    assert devices is not None
    return devices


@pytest.mark.parametrize(
    ("recording", "found"),
    [
        (
            "list_devices_cuda",
            [
                ("CUDA0", Kind.NVIDIA, 11909, 11650, "NVIDIA GeForce RTX 3080 Ti"),
                ("CUDA1", Kind.NVIDIA, 24026, 23795, "NVIDIA RTX PRO 4000 Blackwell SFF Edition"),
            ],
        ),
        ("list_devices_vulkan", [("Vulkan0", Kind.OTHER, 6144, 5136, "NVIDIA GeForce RTX 2060")]),
        (
            "list_devices_lavapipe",
            [("Vulkan0", Kind.OTHER, 24105, 23661, "llvmpipe (LLVM 22.1.8, 256 bits)")],
        ),
        ("list_devices_none", []),
    ],
)
def test_the_engine_names_the_devices_of_every_backend(
    recording: str, found: list[tuple[str, Kind, int, int, str]]
) -> None:
    assert listed(recording) == [
        Device(name, kind, total * MIB, free * MIB, label)
        for name, kind, total, free, label in found
    ]


def test_an_rpc_server_is_called_by_its_address_whatever_its_place_among_others() -> None:
    there = listed("list_devices_rpc")
    assert [(d.name, d.budget) for d in there] == [
        ("RPC0", "127.0.0.1:50652"),
        ("RPC1", "127.0.0.1:50653"),
        ("Vulkan0", "Vulkan0"),
    ]
    other_way = recorded("list_devices_rpc").replace("50652", "x").replace("50653", "50652")
    assert listed("", other_way.replace("x", "50653"))[1].budget == "127.0.0.1:50652"


def test_two_devices_of_one_rpc_server_are_two_budgets() -> None:
    text = recorded("list_devices_rpc").replace("50653", "50652")
    assert [d.budget for d in listed("", text)][:2] == ["127.0.0.1:50652", "127.0.0.1:50652 #2"]


@pytest.mark.parametrize("text", ["", "error: invalid argument", "Failed to connect to h:1\n"])
def test_an_engine_that_prints_no_list_has_not_said_that_there_are_no_devices(text: str) -> None:
    assert devices_in(text) is None

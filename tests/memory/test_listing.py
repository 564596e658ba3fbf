"""The engine's devices are the devices; cards only say what is free on those that they are."""

from __future__ import annotations

import pytest
from attrs import evolve

from llamasup.memory.cards import Card, Maker, parse_nvidia_smi
from llamasup.memory.listing import Listing, refined, under_common_names
from llamasup.memory.readings import HOST, Device, Kind
from tests.memory.recorded import recorded

MIB, GIB = 2**20, 2**30
HOST_TOTAL = 64 * GIB


def card(index: int, free: int, label: str = "NVIDIA GeForce RTX 3090", total: int = 24) -> Card:
    return Card(Maker.NVIDIA, index, total * GIB, free * GIB, label, f"GPU-{'abcd'[index]}1")


def cuda(index: int, label: str = "NVIDIA GeForce RTX 3090", total: int = 24) -> Device:
    """With all of it free, as long as nobody has asked its card."""
    size = total * GIB * 98 // 100
    return Device(f"CUDA{index}", Kind.NVIDIA, size, size, label)


def free(devices: list[Device]) -> list[int]:
    return [device.free // GIB for device in devices]


def no_answer(text: str) -> None:
    pass


def test_the_names_depend_on_engine_and_environment_and_what_is_added_on_the_arguments() -> None:
    one = Listing(
        "1", ("llama-server", "--list-devices"), (("CUDA_VISIBLE_DEVICES", "1"),), no_answer
    )
    assert one.is_of_one_engine_with(evolve(one, command=("llama-server", "--rpc", "h:1")))
    assert not one.is_of_one_engine_with(evolve(one, surroundings=()))
    assert not one.is_of_one_engine_with(evolve(one, engine="2"))


# --- what the cards add ---


def test_cards_say_what_is_free_on_the_devices_that_they_are() -> None:
    cards = [card(0, 5, "NVIDIA A"), card(1, 9, "NVIDIA B")]
    # CUDA counts the fastest first.
    devices, is_old = refined([cuda(0, "NVIDIA B"), cuda(1, "NVIDIA A")], cards, {}, HOST_TOTAL)
    assert (free(devices), is_old) == ([9, 5], False)


def test_cards_that_are_alike_are_told_apart_by_their_order() -> None:
    devices, is_old = refined([cuda(0), cuda(1)], [card(0, 5), card(1, 9)], {}, HOST_TOTAL)
    assert (free(devices), is_old) == ([5, 9], False)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1", [9]), ("1,0", [9, 5]), ("GPU-b1", [9]), ("GPU-b,GPU-a", [9, 5]), ("2", None)],
)
def test_a_renumbered_device_is_the_card_that_was_chosen(
    visible: str, expected: list[int] | None
) -> None:
    own = [cuda(index) for index in range(visible.count(",") + 1)]
    cards = [card(0, 5), card(1, 9)]
    devices, is_old = refined(own, cards, {"CUDA_VISIBLE_DEVICES": visible}, HOST_TOTAL)
    if expected is None:
        assert (devices, is_old) == (own, True)
    else:
        assert (free(devices), is_old) == (expected, False)


def test_numbers_mean_nothing_where_cards_differ_unless_they_count_along_the_bus() -> None:
    # Two alike and one that is faster: nobody knows which one CUDA calls 1.
    cards = [card(0, 5), card(1, 9), card(2, 3, "NVIDIA faster")]
    chosen = {"CUDA_VISIBLE_DEVICES": "1"}
    assert refined([cuda(0)], cards, chosen, HOST_TOTAL) == ([cuda(0)], True)
    along = {**chosen, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    devices, is_old = refined([cuda(0)], cards, along, HOST_TOTAL)
    assert (free(devices), is_old) == ([9], False)


def test_a_vulkan_device_is_its_card_where_there_is_but_one_like_it() -> None:
    vulkan = evolve(cuda(0), name="Vulkan0", kind=Kind.OTHER)
    assert free(refined([vulkan], [card(0, 5)], {}, HOST_TOTAL)[0]) == [5]
    two = [vulkan, evolve(vulkan, name="Vulkan1")]
    assert refined(two, [card(0, 5), card(1, 9)], {}, HOST_TOTAL) == (two, True)


def test_of_an_rpc_server_no_card_of_ours_says_anything() -> None:
    remote = Device("RPC0", Kind.OTHER, HOST_TOTAL, GIB, "h:1", place="h:1")
    assert refined([remote], [card(0, 5)], {}, HOST_TOTAL) == ([remote], True)


def test_a_radeon_is_known_by_its_size() -> None:
    cards = [Card(Maker.AMD, 0, 64 * MIB, 1), Card(Maker.AMD, 1, 20 * GIB, 7 * GIB)]
    vulkan = Device("Vulkan0", Kind.OTHER, 20 * GIB, 20 * GIB, "AMD Radeon RX 7900 XT (RADV)")
    devices, is_old = refined([vulkan], cards, {}, HOST_TOTAL)
    assert (free(devices), is_old) == ([7], False)


# --- a model's own engine ---

SECOND = {"CUDA_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(
    ("own", "environment", "common", "cards", "budgets"),
    [
        # The second of two alike.
        ([cuda(0)], SECOND, [cuda(0), cuda(1)], [card(0, 5), card(1, 9)], ["CUDA1"]),
        ([cuda(0), cuda(1)], {}, [cuda(0), cuda(1)], [card(0, 5), card(1, 9)], ["CUDA0", "CUDA1"]),
        # Nothing is known of cards: a label that only one has, or else the same name.
        ([cuda(0, "B")], SECOND, [cuda(0, "A"), cuda(1, "B")], [], ["CUDA1"]),
        ([cuda(0), cuda(1)], {}, [cuda(0), cuda(1)], [], ["CUDA0", "CUDA1"]),
        # Another build, with names of its own.
        ([evolve(cuda(0), name="Vulkan0")], {}, [cuda(0)], [card(0, 5)], ["CUDA0"]),
        ([evolve(cuda(0), name="Vulkan0")], {}, [cuda(0)], [], ["CUDA0"]),
        # A device that the common engine does not have.
        ([cuda(0, "C")], {}, [cuda(0, "A")], [], ["CUDA0 of another engine"]),
        ([cuda(0)], {}, [], [card(0, 5)], ["CUDA0"]),
    ],
)
def test_a_device_has_the_same_budget_whichever_engine_names_it(
    own: list[Device],
    environment: dict[str, str],
    common: list[Device],
    cards: list[Card],
    budgets: list[str],
) -> None:
    named = under_common_names(own, environment, common, {}, cards)
    assert [device.budget for device in named] == budgets
    assert [device.name for device in named] == [device.name for device in own]


def test_an_rpc_server_is_known_by_its_address_whichever_engine_names_it() -> None:
    remote = Device("RPC0", Kind.OTHER, GIB, GIB, "h:1", place="h:1")
    unified = evolve(cuda(0), unified=True)
    named = under_common_names([remote, unified], {}, [cuda(0)], {}, [])
    assert [device.budget for device in named] == ["h:1", HOST]


# --- whose memory it is ---


def test_an_apu_has_what_the_engine_says_and_not_the_little_that_its_firmware_carves_out() -> None:
    cards = [Card(Maker.AMD, 0, 512 * MIB, 500 * MIB)]
    vulkan = Device("Vulkan0", Kind.OTHER, 32 * GIB, 30 * GIB, "AMD Radeon 780M (RADV PHOENIX)")
    assert refined([vulkan], cards, {}, HOST_TOTAL) == ([vulkan], True)
    # HIP counts the host's memory as free, beside a total that is the carve-out.
    hip = Device("ROCm0", Kind.AMD, 512 * MIB, 40 * GIB, "AMD Radeon 780M")
    [shared], is_old = refined([hip], cards, {}, HOST_TOTAL)
    assert (shared.budget, is_old) == (HOST, False)


@pytest.mark.parametrize("label", ["Apple M1", "Apple M4 Max"])
def test_on_apple_silicon_all_memory_is_the_hosts(label: str) -> None:
    metal = Device("MTL0", Kind.APPLE, 10 * GIB, 10 * GIB, label)
    assert refined([metal], [], {}, 0)[0][0].budget == HOST
    amd = Device("MTL0", Kind.APPLE, 8 * GIB, 8 * GIB, "AMD Radeon Pro 5500M")
    assert refined([amd], [], {}, 0)[0][0].budget == "MTL0"


def test_what_has_just_as_much_as_the_host_is_the_hosts() -> None:
    """A Jetson without nvidia-smi, and Vulkan on the processor."""
    orin = Device("CUDA0", Kind.NVIDIA, HOST_TOTAL - MIB // 2, GIB, "Orin")
    assert refined([orin], [], {}, HOST_TOTAL)[0][0].budget == HOST
    assert refined([cuda(0)], [], {}, 24 * GIB)[0][0].budget == "CUDA0"


def test_a_gpu_of_whose_memory_its_maker_knows_nothing_shares_the_hosts() -> None:
    gb10 = Device("CUDA0", Kind.NVIDIA, 122502 * MIB, 100 * GIB, "NVIDIA GB10")
    cards = parse_nvidia_smi(recorded("nvidia_smi_gb10"))
    assert refined([gb10], cards, {}, 122570 * MIB)[0][0].budget == HOST


def test_a_slice_of_a_card_has_memory_of_its_own() -> None:
    a100 = Card(Maker.NVIDIA, 0, 0, 0, "NVIDIA A100-SXM4-40GB", own_memory=False)
    for label in ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100-SXM4-40GB"):
        device = Device("CUDA0", Kind.NVIDIA, 4864 * MIB, 4800 * MIB, label)
        assert refined([device], [a100], {}, HOST_TOTAL) == ([device], True)
        # Neither is it the whole card, where that can be asked.
        whole = evolve(a100, total=40 * GIB, free=GIB, own_memory=True)
        assert refined([device], [whole], {}, HOST_TOTAL) == ([device], True)

"""Memory is gauged as often as anybody likes: the host's anew, cards a few times a second, and the
engine where nobody else knows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import MockClock

from llamasup.engine.devices import devices_in
from llamasup.memory.cards import Card, Maker
from llamasup.memory.gauge import Gauge
from llamasup.memory.listing import Listing
from llamasup.memory.machine import ThisMachine
from llamasup.memory.readings import HOST

KIB, MIB = 1 << 10, 1 << 20
LISTING = Listing("1", ("llama-server", "--list-devices"), (), devices_in)
CARD = Card(Maker.NVIDIA, 0, 8 * MIB, 5 * MIB, "A")
NOTHING = "Available devices:\n  (none)\n"


def says(*rows: str) -> str:
    return "\n".join(["Available devices:", *(f"  {row} free)" for row in rows), ""])


def vulkan(free: int) -> str:
    return says(f"Vulkan0: Intel Arc A770 (12000 MiB, {free} MiB")


@define
class Machine:
    """A host whose free memory is told, an engine that lists what it is told, and one card."""

    lists: str = says("CUDA0: A (8 MiB, 8 MiB")
    card: Card = CARD
    free: int = 100
    takes: float = 0.0
    asked: list[str] = field(factory=list)

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        if command[-1] != "--list-devices":
            return ""
        self.asked.append("engine")
        await trio.sleep(self.takes)
        return self.lists

    async def read(self, *patterns: str) -> Mapping[str, str]:
        if "/proc/meminfo" not in patterns:
            return {}
        return {"/proc/meminfo": f"MemTotal: 1000 kB\nMemAvailable: {self.free} kB\n"}

    async def nvml(self) -> list[Card]:
        self.asked.append("card")
        await trio.lowlevel.checkpoint()
        return [self.card]


async def test_the_host_is_read_each_time() -> None:
    machine = Machine()
    gauge = Gauge(machine)
    await gauge.listed(LISTING)
    for free in (100, 50):
        machine.free = free
        host, gpu = await gauge.devices()
        assert (host.name, host.free, gpu.name, gpu.free) == (HOST, free * KIB, "CUDA0", 5 * MIB)


async def test_without_a_listing_there_is_only_the_host() -> None:
    machine = Machine()
    [host] = await Gauge(machine).devices()
    assert (host.name, machine.asked) == (HOST, [])


async def test_cards_are_asked_a_few_times_a_second_and_the_engine_once(
    autojump_clock: MockClock,
) -> None:
    machine = Machine()
    gauge = Gauge(machine)
    await gauge.listed(LISTING)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(gauge.devices)
    assert machine.asked == ["engine", "card"]
    machine.card = evolve(machine.card, free=MIB)
    await trio.sleep(1)
    _, gpu = await gauge.devices()
    assert gpu.free == MIB
    assert machine.asked == ["engine", "card", "card"]


async def test_a_card_that_is_gone_is_no_device_in_the_end(autojump_clock: MockClock) -> None:
    machine = Machine()
    gauge = Gauge(machine)
    assert await gauge.listed(LISTING) != []
    machine.lists = NOTHING
    await trio.sleep(301)
    assert await gauge.listed(LISTING) == []


async def test_of_devices_that_no_tool_knows_the_engine_is_asked_again_but_has_its_peace(
    autojump_clock: MockClock,
) -> None:
    machine = Machine(vulkan(12000), takes=1.0)
    gauge = Gauge(machine)
    await gauge.listed(LISTING)
    machine.lists = vulkan(3000)
    _, gpu = await gauge.devices()
    assert gpu.free == 12000 * MIB  # as it said a moment ago
    await trio.sleep(4)
    _, gpu = await gauge.devices()
    assert gpu.free == 3000 * MIB
    assert machine.asked.count("engine") == 2


async def test_an_engine_without_devices_costs_one_question_and_no_cards_tool_any() -> None:
    machine = Machine(NOTHING)
    gauge = Gauge(machine)
    for _ in range(3):
        assert await gauge.listed(LISTING) == []
        await gauge.devices()
    assert machine.asked == ["engine"]


@pytest.mark.parametrize("words", ["", "Failed to connect to 10.0.0.2:50052\n"])
async def test_an_engine_that_gives_no_answer_keeps_its_last_one(
    words: str, autojump_clock: MockClock
) -> None:
    machine = Machine(words)
    gauge = Gauge(machine)
    assert await gauge.listed(LISTING) is None
    machine.lists = vulkan(3000)
    await trio.sleep(11)
    assert await gauge.listed(LISTING) != []
    machine.lists = words
    await trio.sleep(11)
    _, gpu = await gauge.devices()
    assert gpu.free == 3000 * MIB


async def test_an_rpc_server_that_serves_a_child_of_ours_is_not_asked(
    autojump_clock: MockClock,
) -> None:
    """It serves one at a time, and would leave us hanging."""
    machine = Machine(says("RPC0: h:1 (8 MiB, 8 MiB"))
    listing = evolve(LISTING, servers=("h:1",))
    gauge = Gauge(machine)
    gauge.occupied = {"h:1"}
    assert await gauge.listed(listing) is None
    gauge.occupied = {"h:2"}
    assert await gauge.listed(listing) != []
    gauge.occupied = {"h:1"}
    await trio.sleep(9)
    assert [d.budget for d in await gauge.devices()] == [HOST, "h:1"]
    assert machine.asked == ["engine"]


async def test_an_engine_that_hangs_when_asked_again_is_not_waited_for_long(
    autojump_clock: MockClock,
) -> None:
    machine = Machine(vulkan(3000))
    gauge = Gauge(machine)
    await gauge.listed(LISTING)
    machine.takes = math.inf
    began = trio.current_time()
    for _ in range(60):
        await trio.sleep(1)
        await gauge.devices()
    assert trio.current_time() - began < 60 + 10
    _, gpu = await gauge.devices()
    assert gpu.free == 3000 * MIB


async def test_an_engine_that_hangs_on_an_rpc_server_keeps_nobody_else_waiting(
    autojump_clock: MockClock,
) -> None:
    class HangsOnServers(Machine):
        async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
            if "--rpc" in command:
                await trio.sleep(10)
                return ""
            return await super().run(*command, environment=environment)

    gauge = Gauge(HangsOnServers())
    remote = evolve(LISTING, command=("x", "--rpc", "h:1", "--list-devices"), servers=("h:1",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gauge.listed, remote)
        await trio.sleep(1)
        assert await gauge.listed(LISTING)
        assert [d.budget for d in await gauge.devices()] == [HOST, "CUDA0"]
        assert trio.current_time() < 2
        gauge.forget({"h:1"})
    assert [d.budget for d in await gauge.devices()] == [HOST, "CUDA0"]


async def test_what_a_server_that_went_away_had_is_forgotten() -> None:
    machine = Machine(says("RPC0: h:1 (8 MiB, 8 MiB"))
    gauge = Gauge(machine)
    await gauge.listed(evolve(LISTING, servers=("h:1", "h:2")))
    gauge.forget({"h:3"})
    assert [d.budget for d in await gauge.devices()] == [HOST, "h:1"]
    gauge.forget({"h:2"})
    assert [d.budget for d in await gauge.devices()] == [HOST]


async def test_each_device_counts_once_however_many_models_ask_for_it() -> None:
    machine = Machine(says("RPC0: h:1 (8 MiB, 8 MiB", "CUDA0: A (8 MiB, 8 MiB"))
    gauge = Gauge(machine)
    await gauge.listed(LISTING)
    machine.lists = says(
        "RPC0: h:2 (8 MiB, 8 MiB", "RPC1: h:1 (8 MiB, 8 MiB", "CUDA0: A (8 MiB, 8 MiB"
    )
    await gauge.listed(
        evolve(LISTING, command=("llama-server", "--rpc", "h:2,h:1", "--list-devices"))
    )
    assert {d.budget for d in await gauge.devices()} == {HOST, "h:1", "h:2", "CUDA0"}


async def test_under_another_environment_the_old_names_mean_nothing() -> None:
    machine = Machine(says("CUDA0: A (8 MiB, 8 MiB", "CUDA1: B (8 MiB, 8 MiB"))
    gauge = Gauge(machine)
    await gauge.listed(LISTING)
    machine.lists = says("CUDA0: B (8 MiB, 8 MiB")
    await gauge.listed(evolve(LISTING, surroundings=(("CUDA_VISIBLE_DEVICES", "1"),)))
    assert [d.label for d in await gauge.devices()] == ["", "B"]


async def test_a_model_s_own_engine_has_the_devices_that_the_common_one_has() -> None:
    machine = Machine(says("CUDA0: A (8 MiB, 8 MiB", "CUDA1: B (8 MiB, 8 MiB"))
    gauge = Gauge(machine)
    await gauge.listed(LISTING)
    machine.lists = says("CUDA0: B (8 MiB, 6 MiB")
    own = evolve(LISTING, owner="x", surroundings=(("CUDA_VISIBLE_DEVICES", "1"),))
    [device] = await gauge.listed(own) or []
    assert (device.name, device.budget) == ("CUDA0", "CUDA1")
    assert {d.budget: d.label for d in await gauge.devices()} == {
        HOST: "",
        "CUDA0": "A",
        "CUDA1": "B",
    }
    await gauge.listed(evolve(own, engine="another build"))
    assert {d.budget for d in await gauge.devices()} == {HOST, "CUDA0", "CUDA1"}


class Watched(ThisMachine):
    """This machine, and what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        self.asked.append("a program")
        return await super().run(*command, environment=environment)

    async def read(self, *patterns: str) -> Mapping[str, str]:
        self.asked.append("files")
        return await super().read(*patterns)


async def test_a_reading_of_this_machine_reads_files_and_runs_nothing() -> None:
    machine = Watched()
    host, *_ = await Gauge(machine).devices()
    assert 0 < host.free <= host.total
    assert machine.asked == ["files", "files"]  # what there is, and the limits on us

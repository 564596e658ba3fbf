"""Memory is gauged as often as anybody likes: the host's anew, the GPUs' a few times a second."""

from __future__ import annotations

import time
from collections.abc import Mapping

import trio
from attrs import define, evolve
from trio.testing import MockClock

from llamasup.memory.gauge import Gauge
from llamasup.memory.hardware import HOST, Device, Kind, ThisMachine

KIB = 1 << 10


@define
class Machine:
    """A host whose free memory is told, and one GPU."""

    gpu: Device
    free: int = 100
    asked: int = 0

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        return ""

    async def read(self, *patterns: str) -> Mapping[str, str]:
        if "/proc/meminfo" not in patterns:
            return {}
        return {"/proc/meminfo": f"MemTotal: 1000 kB\nMemAvailable: {self.free} kB\n"}

    async def nvml(self) -> list[Device]:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return [self.gpu]


GPU = Device("CUDA0", Kind.NVIDIA, 8, 5)


async def test_the_host_is_read_each_time() -> None:
    machine = Machine(GPU)
    gauge = Gauge(machine)
    for free in (100, 50):
        machine.free = free
        host, gpu = await gauge.devices()
        assert (host.name, host.free, gpu) == (HOST, free * KIB, GPU)


async def test_gpus_are_asked_once_a_second_whoever_wants_to_know(
    autojump_clock: MockClock,
) -> None:
    machine = Machine(GPU)
    gauge = Gauge(machine)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(gauge.devices)
    assert machine.asked == 1
    machine.gpu = evolve(GPU, free=1)
    assert await gauge.gpus() == [GPU]
    await trio.sleep(1)
    assert await gauge.gpus() == [machine.gpu]
    assert machine.asked == 2


async def test_a_gpu_without_memory_of_its_own_has_what_the_host_has_now() -> None:
    machine = Machine(Device("CUDA0", Kind.NVIDIA, 0, 0, unified=True))
    gauge = Gauge(machine)
    for free in (100, 50):
        machine.free = free
        _, gpu = await gauge.devices()
        assert (gpu.free, gpu.budget) == (free * KIB, HOST)


async def test_a_reading_of_this_machine_takes_no_time_worth_speaking_of() -> None:
    gauge = Gauge(ThisMachine())
    await gauge.devices()
    readings = []
    for _ in range(20):
        start = time.perf_counter()
        host, *_ = await gauge.devices()
        readings.append(time.perf_counter() - start)
        assert 0 < host.free <= host.total
    # The best of many, for others may be busy here.
    assert min(readings) < 0.005

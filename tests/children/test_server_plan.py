"""The plan of another server: one rung, and the memory that the operator or its last child said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llamasup.children.needs import Needs, Source
from llamasup.children.plan import Plan
from llamasup.errors import ModelUnavailable
from llamasup.memory.ladder import Learned, Rung
from llamasup.memory.readings import HOST, Device, Kind

Planning = Callable[[Mapping[str, object]], Plan]

GIB = 1 << 30
DEVICES = [
    Device("CUDA0", Kind.NVIDIA, 24 * GIB, 24 * GIB),
    Device("Vulkan0", Kind.OTHER, 8 * GIB, 8 * GIB, unified=True),
    Device("RPC0", Kind.OTHER, 8 * GIB, 8 * GIB, place="far:1"),
]


def server(**settings: object) -> dict[str, object]:
    return {
        "models.x.command": ["speak", "--port", "${PORT}"],
        **{f"models.x.{key}": value for key, value in settings.items()},
    }


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[Device] | None:
    async def listed(needs: Needs) -> list[Device] | None:
        return DEVICES

    monkeypatch.setattr(Needs, "devices_of_all", listed)
    return DEVICES


async def need(plan: Plan) -> Any:
    await plan.look_at_devices()
    return await plan.need(Rung())


async def test_it_has_one_rung_and_learns_none(planning: Planning) -> None:
    plan = planning(server(slots=3))
    assert (await plan.rungs(), plan.is_open, plan.slots) == ((Rung(),), False, 3)
    await plan.learn(Learned(Rung(), 0.0, 0))
    assert await plan.learned() is None
    assert (await plan.trained_context(), await plan.file_size(), plan.path) == (None, 0, None)


@pytest.mark.parametrize(
    ("memory", "amounts"),
    [
        ("2GiB", {HOST: 2 * GIB}),
        (0, {HOST: 0}),
        ({"host": "1GiB", "CUDA0": "6GiB"}, {HOST: GIB, "CUDA0": 6 * GIB}),
        ({"host": "1GiB", "Vulkan0": "2GiB"}, {HOST: 3 * GIB}),
        ({"RPC0": "1GiB"}, {"far:1": GIB}),
    ],
)
async def test_what_the_operator_says_counts_by_the_devices_budgets(
    planning: Planning, devices: list[Device], memory: object, amounts: dict[str, int]
) -> None:
    needed = await need(planning(server(memory=memory)))
    assert (needed.amounts, needed.source) == (amounts, Source.CONFIGURATION)
    assert needed.least == amounts


async def test_memory_of_a_device_that_is_not_there_is_told(
    planning: Planning, devices: list[Device]
) -> None:
    plan = planning(server(memory={"CUDA1": "6GiB"}))
    assert (await need(plan)).defect == (
        "the engine lists no device CUDA1; write host or CUDA0 or Vulkan0 or RPC0 in its `memory`"
    )
    with pytest.raises(ModelUnavailable, match="no device CUDA1"):
        await plan.child(Rung())


async def test_while_no_engine_lists_devices_any_name_may_be_one(planning: Planning) -> None:
    plan = planning({**server(memory={"CUDA1": "6GiB"}), "engine.command": "/no/such/engine"})
    assert (await need(plan)).amounts == {"CUDA1": 6 * GIB}


async def test_what_it_held_the_last_time_is_expected_and_refuses_nothing(
    planning: Planning,
) -> None:
    first = planning(server())
    assert (await need(first)).source is Source.UNKNOWN
    assert (await need(first)).amounts == {}
    await first.measured(Rung(), 3 * GIB)
    needed = await need(planning(server(idle_unload=1)))
    assert (needed.amounts, needed.source) == ({HOST: 3 * GIB}, Source.MEASURED)
    assert needed.least == {HOST: 0}
    assert (await need(planning(server(slots=2)))).source is Source.UNKNOWN


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"command": ["speak", "-v", "${PORT}"]}, True),
        ({"health": "/health"}, True),
        ({"slots": 2}, True),
        ({"env": {"X": "1"}}, True),
        ({"memory": "1GiB"}, False),
        ({"idle_unload": 1}, False),
    ],
)
def test_what_it_is_started_with_makes_another_child(
    planning: Planning, change: dict[str, object], another: bool
) -> None:
    assert planning(server()).launches_like(planning(server(**change))) is not another

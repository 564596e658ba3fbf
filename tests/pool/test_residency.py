"""Places in memory: given as admission decides, and taken back when the memory is back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.children.child import Child
from llamasup.children.keeper import Keeper
from llamasup.children.needs import Needed, Source
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.errors import ModelUnavailable, NoRoom
from llamasup.events import Journal
from llamasup.memory.gauge import Gauge
from llamasup.memory.readings import HOST, Device, Kind
from llamasup.pool.gate import Gate
from llamasup.pool.residency import Residency
from llamasup.states import ChildState
from tests.harness import eventually

GIB = 1 << 30


@define
class StubGauge:
    """Memory that is as the test says."""

    free: dict[str, int] = field(factory=lambda: {HOST: 10})
    occupied: Set[str] = frozenset()

    async def devices(self) -> list[Device]:
        kinds = {HOST: Kind.HOST}
        return [
            Device(name, kinds.get(name, Kind.NVIDIA), 10 * GIB, free * GIB)
            for name, free in self.free.items()
        ]


class StubChild:
    """A child that is ready, and uses what the test says."""

    pid = None
    cause = None

    def __init__(self) -> None:
        self.state = ChildState.READY
        self.users = 0
        self.ready_at = self.last_used = trio.current_time()


class StubGate:
    """A gate with a keeper behind it that stops its child at once."""

    def __init__(self, model: str, **settings: Any) -> None:
        self.held = False
        self.shut_out_since: float | None = None
        self.child = StubChild()
        plan = SimpleNamespace(
            model=model,
            idle_unload=settings.get("idle_unload", 0.0),
            settings=SimpleNamespace(unloadable=settings.get("unloadable", True)),
            look_at_devices=trio.lowlevel.checkpoint,
        )
        self.keeper = SimpleNamespace(
            model=model, plan=plan, unload=self.unload, room_appeared=self.room_appeared
        )
        self.told_of_room = 0
        self.unloaded = trio.Event()
        self.waiting = 0

    def admit(self) -> None:
        self.child.users += self.waiting
        self.waiting = 0

    def room_appeared(self) -> None:
        self.told_of_room += 1

    def hold(self, held: bool) -> None:
        self.held = held

    def unload(self) -> None:
        self.child.state = ChildState.STOPPING
        self.unloaded.set()


class House:
    """A residency, and gates that are made as they are asked for."""

    def __init__(self, nursery: trio.Nursery, **pool: object) -> None:
        self.gauge = StubGauge()
        self.gates: dict[str, StubGate] = {}
        config = load(None, {}, {"pool.memory_reserve": 0, **pool})
        gates = cast(Mapping[str, Gate], self.gates)
        self.residency = Residency(InEffect(config), gates, cast(Gauge, self.gauge), Journal())
        self._nursery = nursery
        nursery.start_soon(self.residency.run)

    def gate(self, model: str, **settings: Any) -> StubGate:
        return self.gates.setdefault(model, StubGate(model, **settings))

    async def lives(
        self,
        model: str,
        needs: Mapping[str, int] = {HOST: 4},
        servers: tuple[str, ...] = (),
        task_status: trio.TaskStatus[StubGate] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """A model's whole life: its place, its child, until that is told to go."""
        gate = self.gate(model)
        amounts = {device: amount * GIB for device, amount in needs.items()}
        await self.residency.room(cast(Keeper, gate.keeper))
        place = await self.residency.place(
            cast(Keeper, gate.keeper), Needed(amounts, Source.HEADER, servers=servers)
        )
        async with place:
            place.occupy(cast(Child, gate.child))
            place.ready()
            task_status.started(gate)
            await gate.unloaded.wait()


@asynccontextmanager
async def house(**pool: object) -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        yield House(nursery, **{f"pool.{key}": value for key, value in pool.items()})
        nursery.cancel_scope.cancel()


async def test_models_live_side_by_side_as_long_as_they_fit() -> None:
    async with house() as there, trio.open_nursery() as nursery:
        await nursery.start(there.lives, "a")
        await nursery.start(there.lives, "b")
        assert there.residency.places.keys() == {"a", "b"}
        nursery.cancel_scope.cancel()


async def test_the_idle_model_that_was_used_longest_ago_makes_room(
    autojump_clock: MockClock,
) -> None:
    async with house() as there, trio.open_nursery() as nursery:
        first = await nursery.start(there.lives, "a")
        await trio.sleep(1)
        await nursery.start(there.lives, "b")
        await nursery.start(there.lives, "c")
        assert first.unloaded.is_set()
        assert there.residency.places.keys() == {"b", "c"}
        nursery.cancel_scope.cancel()


async def test_the_next_one_starts_when_the_memory_of_a_gpu_is_really_back(
    autojump_clock: MockClock,
) -> None:
    async with house() as there, trio.open_nursery() as nursery:
        there.gauge.free = {HOST: 10, "CUDA0": 9}
        first = await nursery.start(there.lives, "a", {"CUDA0": 8})
        there.gauge.free["CUDA0"] = 1
        nursery.start_soon(there.lives, "b", {"CUDA0": 8})
        await first.unloaded.wait()
        await trio.sleep(1)
        assert there.residency.places.keys() == {"a"}
        there.gauge.free["CUDA0"] = 9
        await trio.sleep(1)
        assert there.residency.places.keys() == {"b"}
        nursery.cancel_scope.cancel()


async def test_memory_that_never_comes_back_delays_no_load_for_long(
    autojump_clock: MockClock,
) -> None:
    async with house() as there, trio.open_nursery() as nursery:
        there.gauge.free = {HOST: 10, "CUDA0": 9}
        first = await nursery.start(there.lives, "a", {"CUDA0": 8})
        there.gauge.free["CUDA0"] = 1
        nursery.start_soon(there.lives, "b", {"CUDA0": 1})
        first.unload()
        await trio.sleep(6)
        assert there.residency.places.keys() == {"b"}
        nursery.cancel_scope.cancel()


async def test_a_model_larger_than_the_machine_is_refused_and_evicts_no_other() -> None:
    async with house() as there, trio.open_nursery() as nursery:
        idle = await nursery.start(there.lives, "a")
        with pytest.raises(
            NoRoom, match=r"it needs 11\.0 GiB on host, and there is room for 10\.0"
        ):
            await there.residency.place(
                cast(Keeper, there.gate("b").keeper), Needed({HOST: 11 * GIB}, Source.HEADER)
            )
        assert not idle.unloaded.is_set()
        nursery.cancel_scope.cancel()


async def test_a_model_whose_file_is_broken_evicts_no_other() -> None:
    async with house(max_loaded_models=1) as there, trio.open_nursery() as nursery:
        idle = await nursery.start(there.lives, "a")
        with pytest.raises(ModelUnavailable, match="invalid magic"):
            await there.residency.place(
                cast(Keeper, there.gate("b").keeper),
                Needed({}, Source.HEADER, defect="invalid magic"),
            )
        assert not idle.unloaded.is_set()
        nursery.cancel_scope.cancel()


async def test_a_busy_model_admits_no_request_after_its_turn_while_another_waits(
    autojump_clock: MockClock,
) -> None:
    async with house(max_loaded_models=1, turn="30s") as there, trio.open_nursery() as nursery:
        busy = await nursery.start(there.lives, "a")
        busy.child.users = 1
        with trio.CancelScope() as wish:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(there.lives, "b")
                await trio.sleep(29)
                assert not busy.held
                await trio.sleep(2)
                assert busy.held
                wish.cancel()
        assert not busy.held
        assert there.residency.places.keys() == {"a"}

        nursery.start_soon(there.lives, "b")
        await trio.sleep(31)
        assert busy.held
        busy.child.users = 0
        there.residency.note_idle(cast(Gate, busy))
        await wait_all_tasks_blocked()
        assert there.residency.places.keys() == {"b"}
        nursery.cancel_scope.cancel()


async def test_a_model_goes_when_it_has_idled_for_its_time_and_not_while_it_is_used(
    autojump_clock: MockClock,
) -> None:
    async with house() as there, trio.open_nursery() as nursery:
        there.gate("a", idle_unload=60)
        gate = await nursery.start(there.lives, "a")
        gate.child.users = 1
        await trio.sleep(100)
        assert not gate.unloaded.is_set()
        gate.child.users = 0
        gate.child.last_used = trio.current_time()
        there.residency.note_idle(cast(Gate, gate))
        await trio.sleep(59)
        assert not gate.unloaded.is_set()
        await trio.sleep(2)
        assert gate.unloaded.is_set()
        nursery.cancel_scope.cancel()


async def test_what_is_pinned_never_idles_away(autojump_clock: MockClock) -> None:
    async with house() as there, trio.open_nursery() as nursery:
        there.gate("a", idle_unload=60, unloadable=False)
        gate = await nursery.start(there.lives, "a")
        there.residency.note_idle(cast(Gate, gate))
        await trio.sleep(1000)
        assert not gate.unloaded.is_set()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("users", "waiting", "unloadable", "goes"),
    [(0, 0, True, True), (1, 0, True, False), (0, 1, True, False), (0, 0, False, False)],
)
async def test_what_its_client_lets_go_of_is_unloaded_unless_others_use_it_or_it_is_pinned(
    users: int, waiting: int, unloadable: bool, goes: bool
) -> None:
    async with house() as there, trio.open_nursery() as nursery:
        there.gate("a", unloadable=unloadable)
        gate = await nursery.start(there.lives, "a")
        gate.child.users, gate.waiting = users, waiting
        there.residency.let_go("a")
        assert gate.unloaded.is_set() is goes
        there.residency.let_go("a")
        there.residency.let_go("not loaded")
        nursery.cancel_scope.cancel()


async def test_a_model_that_is_never_used_is_unloaded_too(autojump_clock: MockClock) -> None:
    async with house() as there, trio.open_nursery() as nursery:
        there.gate("a", idle_unload=60)
        gate = await nursery.start(there.lives, "a")
        await trio.sleep(59)
        assert not gate.unloaded.is_set()
        await trio.sleep(2)
        assert gate.unloaded.is_set()
        nursery.cancel_scope.cancel()


async def test_requests_that_waited_for_a_model_enter_before_it_can_be_unloaded() -> None:
    async with house(max_loaded_models=1) as there, trio.open_nursery() as nursery:
        gate = there.gate("a")
        gate.waiting = 2
        gate.child.state = ChildState.STARTING
        needed = Needed({HOST: GIB}, Source.HEADER)
        async with await there.residency.place(cast(Keeper, gate.keeper), needed) as place:
            place.occupy(cast(Child, gate.child))
            nursery.start_soon(there.lives, "b")
            await wait_all_tasks_blocked()
            gate.child.state = ChildState.READY
            place.ready()
            assert not gate.unloaded.is_set()
            nursery.cancel_scope.cancel()


async def test_no_model_is_unloaded_for_a_load_that_is_not_wanted_any_more() -> None:
    async with house(max_loaded_models=1) as there, trio.open_nursery() as nursery:
        idle = await nursery.start(there.lives, "a")
        keeper = cast(Keeper, there.gate("b").keeper)
        with trio.CancelScope() as wish:
            wish.cancel()
            await there.residency.place(keeper, Needed({HOST: GIB}, Source.HEADER))
        assert wish.cancelled_caught
        assert not idle.unloaded.is_set()
        nursery.cancel_scope.cancel()


BOTH = "CUDA0+CUDA1"


async def test_a_need_of_several_gpus_is_spread_by_what_will_be_free_so_the_idle_one_goes(
    autojump_clock: MockClock,
) -> None:
    """By what is free while `a` is there, nearly all of `b` would have to fit on one GPU."""
    async with house() as there, trio.open_nursery() as nursery:
        there.gauge.free = {HOST: 10, "CUDA0": 10, "CUDA1": 10}
        first = await nursery.start(there.lives, "a", {"CUDA0": 8})
        there.gauge.free["CUDA0"] = 2
        nursery.start_soon(there.lives, "b", {BOTH: 14})
        await first.unloaded.wait()
        there.gauge.free["CUDA0"] = 10
        await eventually(lambda: "b" in there.residency.places)
        assert there.residency.places["b"].holds == {"CUDA0": 7 * GIB, "CUDA1": 7 * GIB}
        nursery.cancel_scope.cancel()


async def test_a_need_that_fits_beside_others_is_spread_and_no_model_is_unloaded() -> None:
    async with house() as there, trio.open_nursery() as nursery:
        there.gauge.free = {HOST: 10, "CUDA0": 10, "CUDA1": 10}
        first = await nursery.start(there.lives, "a", {"CUDA0": 6})
        there.gauge.free["CUDA0"] = 4
        await nursery.start(there.lives, "b", {BOTH: 7})
        assert there.residency.places["b"].holds == {"CUDA0": 2 * GIB, "CUDA1": 5 * GIB}
        assert not first.unloaded.is_set()
        nursery.cancel_scope.cancel()


async def test_a_claim_in_the_same_moment_finds_taken_what_was_spread(
    autojump_clock: MockClock,
) -> None:
    async with house() as there, trio.open_nursery() as nursery:
        there.gauge.free = {HOST: 10, "CUDA0": 10, "CUDA1": 10}
        before = await nursery.start(there.lives, "before", {"CUDA0": 10, "CUDA1": 10})
        before.child.users = 1
        there.gate("a").child.users = 1
        nursery.start_soon(there.lives, "a", {BOTH: 16})
        await wait_all_tasks_blocked()
        nursery.start_soon(there.lives, "b", {"CUDA0": 4})
        await wait_all_tasks_blocked()
        before.unload()
        await eventually(lambda: "a" in there.residency.places)
        # Together they would fit; but half of the first is where all of the second should be.
        assert there.residency.places["a"].holds == {"CUDA0": 8 * GIB, "CUDA1": 8 * GIB}
        assert "b" not in there.residency.places
        nursery.cancel_scope.cancel()


async def test_what_is_too_much_for_all_gpus_together_is_refused_in_their_name() -> None:
    async with house() as there:
        there.gauge.free = {HOST: 10, "CUDA0": 10, "CUDA1": 10}
        with pytest.raises(NoRoom, match=r"21.0 GiB on CUDA0\+CUDA1, and there is room for 20.0"):
            await there.lives("a", {BOTH: 21})


async def test_an_unloaded_model_is_gone_when_the_next_try_begins(
    autojump_clock: MockClock,
) -> None:
    async with house() as there, trio.open_nursery() as nursery:
        there.gauge.free = {HOST: 10, "CUDA0": 9}
        first = await nursery.start(there.lives, "a", {"CUDA0": 4})
        busy = await nursery.start(there.lives, "b", {"CUDA0": 4})
        busy.child.users = 1
        keeper = cast(Keeper, there.gate("c").keeper)
        needed = Needed({"CUDA0": GIB}, Source.HEADER)
        assert there.residency.dispensable(keeper, needed) == ["a"]
        there.gauge.free["CUDA0"] = 1
        begun = trio.current_time()
        nursery.start_soon(there.residency.unload, ["a"])
        await first.unloaded.wait()
        there.gauge.free["CUDA0"] = 6
        await trio.sleep(1)
        assert there.residency.places.keys() == {"b"}
        assert trio.current_time() < begun + 2
        assert there.residency.dispensable(keeper, needed) == []
        assert there.residency.crowds(keeper, needed)
        assert not there.residency.crowds(keeper, Needed({HOST: GIB}, Source.HEADER))
        nursery.cancel_scope.cancel()


async def test_a_model_that_is_idle_only_until_its_own_requests_enter_is_not_unloaded() -> None:
    async with house() as there, trio.open_nursery() as nursery:
        first = await nursery.start(there.lives, "a")
        first.waiting = 1
        keeper = cast(Keeper, there.gate("b").keeper)
        assert there.residency.dispensable(keeper, Needed({}, Source.HEADER)) == []
        nursery.cancel_scope.cancel()


async def test_that_a_model_has_gone_is_told_to_the_others_but_not_that_one_failed() -> None:
    async with house() as there, trio.open_nursery() as nursery:
        other = there.gate("b")
        first = await nursery.start(there.lives, "a")
        first.unload()
        await wait_all_tasks_blocked()
        assert (first.told_of_room, other.told_of_room) == (0, 1)
        needed = Needed({HOST: GIB}, Source.HEADER)
        async with await there.residency.place(cast(Keeper, first.keeper), needed):
            pass  # its child never got ready
        assert other.told_of_room == 1
        nursery.cancel_scope.cancel()


async def test_an_idle_model_answers_while_another_ones_long_answer_lasts(
    autojump_clock: MockClock,
) -> None:
    async with house(turn="30s") as there, trio.open_nursery() as nursery:
        long = await nursery.start(there.lives, "a")
        long.child.users = 1
        idle = await nursery.start(there.lives, "b")
        nursery.start_soon(there.lives, "c", {HOST: 9})
        await trio.sleep(31)
        assert (long.held, idle.held) == (True, False)
        idle.child.users = 1
        await trio.sleep(300)
        assert not idle.held
        long.child.users = 0
        there.residency.note_idle(cast(Gate, long))
        assert (long.held, idle.held) == (True, True)
        idle.child.users = 0
        there.residency.note_idle(cast(Gate, idle))
        await wait_all_tasks_blocked()
        assert there.residency.places.keys() == {"c"}
        nursery.cancel_scope.cancel()


async def test_a_measurement_alone_refuses_no_model() -> None:
    async with house() as there, trio.open_nursery() as nursery:
        idle = await nursery.start(there.lives, "a", {HOST: 1})
        keeper = cast(Keeper, there.gate("b").keeper)
        measured = Needed({HOST: 15 * GIB}, Source.MEASURED, least={HOST: 6 * GIB})
        async with await there.residency.place(keeper, measured):
            assert there.residency.places.keys() == {"b"}
        assert idle.unloaded.is_set()
        nursery.cancel_scope.cancel()


async def test_an_rpc_server_serves_one_model_at_a_time(autojump_clock: MockClock) -> None:
    """Whoever comes second would hang, however little memory both take."""
    async with house() as there, trio.open_nursery() as nursery:
        there.gauge.free = {HOST: 10, "h:1": 10, "h:2": 10}
        first = await nursery.start(there.lives, "a", {"h:1": 1}, ("h:1",))
        assert there.gauge.occupied == {"h:1"}
        await nursery.start(there.lives, "b", {"h:2": 1}, ("h:2",))
        assert not first.unloaded.is_set()
        await nursery.start(there.lives, "c", {"h:1+h:2": 2}, ("h:1", "h:2"))
        assert there.residency.places.keys() == {"c"}
        assert there.gauge.occupied == {"h:1", "h:2"}
        nursery.cancel_scope.cancel()

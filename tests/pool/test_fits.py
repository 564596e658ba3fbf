"""What fits is told of every model, from its rungs, the room and who is resident; nobody moves."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from llamasup.children.child import Child
from llamasup.children.keeper import Keeper
from llamasup.children.needs import Needed, Source
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.events import Journal
from llamasup.memory.gauge import Gauge
from llamasup.memory.ladder import Learned, Rung
from llamasup.memory.readings import HOST, Device, Kind
from llamasup.memory.room import Amounts
from llamasup.models.glances import seen
from llamasup.pool.admission import Drain, Evict, Load, Refuse
from llamasup.pool.fits import TIME_TO_ASK, Fit, Survey, survey
from llamasup.pool.gate import Gate
from llamasup.pool.pool import Pool
from llamasup.pool.residency import Place, Residency
from llamasup.states import ChildState, KeeperState

GIB = 1 << 30


class TenGibibytes:
    """A host of that size, all free."""

    async def devices(self) -> list[Device]:
        return [Device(HOST, Kind.HOST, 10 * GIB, 10 * GIB)]


@define
class Model:
    """A plan whose header says a GiB for every thousand tokens, and whose engine agrees, slowly."""

    model: str
    contexts: tuple[int, ...] = (8000, 4000, 2000)
    is_open: bool = True
    unloadable: bool = True
    defect: str = ""
    held: Learned | None = None
    engine_takes: float = 0.0
    idle_unload: float = 0.0
    climb_interval: float = 3600.0
    path: Path = Path("m.gguf")
    program: str = ""
    settings: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.settings = SimpleNamespace(unloadable=self.unloadable)

    async def rungs(self) -> list[Rung]:
        return [Rung(context) for context in self.contexts]

    async def look_at_devices(self) -> None:
        pass

    async def need(self, rung: Rung, free: Amounts | None = None) -> Needed:
        if self.defect:
            return Needed({}, Source.HEADER, self.defect)
        if free == {}:
            await trio.sleep(self.engine_takes)
        source = Source.ENGINE if free == {} else Source.HEADER
        return Needed({HOST: (rung.context or 0) * GIB // 1000}, source)

    async def learned(self) -> Learned | None:
        return self.held

    async def file_size(self) -> int:
        return 3

    async def trained_context(self) -> int | None:
        return 8000


class House:
    """A residency, and the models that live there or would like to."""

    def __init__(self, **pool: object) -> None:
        config = load(None, {}, {"pool.memory_reserve": 0, **pool})
        self.residency = Residency(InEffect(config), {}, cast(Gauge, TenGibibytes()), Journal())
        self.keepers: dict[str, Any] = {}

    def add(self, plan: Model) -> Any:
        self.keepers[plan.model] = keeper = SimpleNamespace(
            model=plan.model, plan=plan, rung=None, state=KeeperState.UNLOADED
        )
        return keeper

    def loaded(self, plan: Model, context: int, users: int = 0) -> None:
        """It is resident, on the rung with this context."""
        keeper = self.add(plan)
        keeper.rung, keeper.state = Rung(context), KeeperState.READY
        gate = cast(Gate, SimpleNamespace(keeper=cast(Keeper, keeper), held=False))
        place = Place(gate, Needed({HOST: context * GIB // 1000}, Source.HEADER), self.residency)
        child = SimpleNamespace(
            state=ChildState.READY, users=users, pid=None, ready_at=0.0, last_used=0.0
        )
        place.occupy(cast(Child, child))
        self.residency.places[plan.model] = place

    async def survey(self) -> Survey:
        return await survey(cast(Pool, self))

    async def fit(self, model: str) -> Fit:
        return next(fit for fit in (await self.survey()).fits if fit.model == model)


async def test_a_model_with_enough_room_begins_on_its_best_rung_for_nothing() -> None:
    house = House()
    house.add(Model("a"))
    [fit] = (await house.survey()).fits
    assert (fit.model, fit.state, fit.path) == ("a", KeeperState.UNLOADED, Path("m.gguf"))
    assert (fit.size, fit.trained_context) == (3, 8000)
    assert fit.best == fit.begins
    assert fit.begins.needed == Needed({HOST: 8 * GIB}, Source.ENGINE)
    assert (fit.begins.outcome, fit.largest) == (Load(), Rung(8000))


async def test_what_is_left_to_us_makes_do_with_what_is_free_and_its_best_has_a_price() -> None:
    house = House()
    house.loaded(Model("b"), 4000)
    house.add(Model("a"))
    assert (await house.survey()).free == {HOST: 6 * GIB}
    fit = await house.fit("a")
    assert (fit.begins.rung, fit.begins.outcome) == (Rung(4000), Load())
    assert (fit.best.rung, fit.best.outcome) == (Rung(8000), Evict(("b",)))
    assert fit.largest == Rung(4000)


async def test_what_the_operator_wrote_is_begun_with_though_others_have_to_go() -> None:
    house = House()
    house.loaded(Model("b"), 4000)
    house.add(Model("a", is_open=False))
    fit = await house.fit("a")
    assert (fit.begins.rung, fit.begins.outcome) == (Rung(8000), Evict(("b",)))
    assert fit.largest == Rung(4000)


async def test_a_busy_one_would_go_when_it_has_answered() -> None:
    house = House()
    house.loaded(Model("b"), 4000, users=1)
    house.add(Model("a", is_open=False))
    assert (await house.fit("a")).begins.outcome == Drain(("b",))


async def test_one_that_held_before_is_begun_with() -> None:
    house = House()
    held = Learned(Rung(2000), at=time.time(), free=100 * GIB)
    house.add(Model("a", held=held))
    fit = await house.fit("a")
    assert (fit.begins.rung, fit.best.rung) == (Rung(2000), Rung(8000))


async def test_a_loaded_model_is_told_of_on_its_rung_and_as_if_its_own_place_were_free() -> None:
    house = House()
    house.loaded(Model("a"), 4000)
    fit = await house.fit("a")
    assert (fit.begins.rung, fit.begins.outcome) == (Rung(4000), Load())
    assert (fit.best.outcome, fit.largest) == (Load(), Rung(8000))


async def test_if_nothing_can_be_done_the_reason_is_told_and_no_model_would_be_unloaded() -> None:
    house = House()
    house.loaded(Model("b", unloadable=False), 4000)
    house.add(Model("a", contexts=(9000, 8000)))
    fit = await house.fit("a")
    assert isinstance(fit.begins.outcome, Refuse)
    assert "b will not be unloaded" in fit.begins.outcome.reason
    assert (fit.begins.rung, fit.largest) == (Rung(8000), None)


async def test_the_number_of_models_counts_as_well_as_memory() -> None:
    house = House(**{"pool.max_loaded_models": 1})
    house.loaded(Model("b"), 2000)
    house.add(Model("a"))
    fit = await house.fit("a")
    assert (fit.largest, fit.best.outcome) == (Rung(8000), Evict(("b",)))


@pytest.mark.parametrize("most", [0, 1])
async def test_a_defect_is_told_and_nothing_fits(most: int) -> None:
    house = House(**{"pool.max_loaded_models": most})
    house.loaded(Model("b"), 2000)
    house.add(Model("a", defect="cut off"))
    fit = await house.fit("a")
    assert (fit.begins.needed.defect, fit.largest) == ("cut off", None)
    assert fit.begins.outcome == (Refuse(503, "cut off") if most else Load())


async def test_engines_that_take_too_long_are_left_out_and_the_formula_stands(
    autojump_clock: MockClock,
) -> None:
    house = House()
    for model in ("a", "b", "c"):
        house.add(Model(model, contexts=(1000,), engine_takes=1.5))
    began = trio.current_time()
    fits = (await house.survey()).fits
    assert trio.current_time() - began == pytest.approx(TIME_TO_ASK)
    sources = [fit.begins.needed.source for fit in fits]
    assert sources == [Source.ENGINE, Source.HEADER, Source.HEADER]
    assert all(fit.begins.needed.amounts == {HOST: GIB} for fit in fits)


class Steps(trio.abc.Instrument):
    """Counts how often the loop had its turn."""

    def __init__(self) -> None:
        self.taken = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken += 1


async def test_of_thousands_the_loop_hears_a_rung_at_a_time_and_nothing_is_seen_twice() -> None:
    steps, at, looks = Steps(), list[int](), list[str]()

    async def look(what: str) -> None:
        looks.append(what)

    class Watched(Model):
        async def need(self, rung: Rung, free: Amounts | None = None) -> Needed:
            at.append(steps.taken)
            for what in ("engine", self.model):
                await seen(what, partial(look, what))
            return await super().need(rung, free)

    house = House()
    models = [f"m{number}" for number in range(300)]
    for model in models:
        house.add(Watched(model, contexts=(20_000, 16_000, 12_000, 8_000)))
    trio.lowlevel.add_instrument(steps)
    try:
        await house.survey()
    finally:
        trio.lowlevel.remove_instrument(steps)
    assert len(at) > 2 * 300
    assert len(at) == len(set(at))
    assert sorted(looks) == sorted(["engine", *models])

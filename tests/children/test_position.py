"""A model goes down its ladder as far as it must, and begins again where it held."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from llamasup.children.needs import Needed, Source
from llamasup.children.plan import Plan
from llamasup.children.position import Position
from llamasup.memory.ladder import Learned, Rung
from llamasup.memory.room import Amounts, Room

GIB = 1 << 30
WIDE = Room({"host": 9 * GIB}, {"host": 9 * GIB})


class Ladder:
    """A plan of three rungs that remembers in memory."""

    model = "m"
    climb_interval = 3600.0

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_open = is_open
        self.known: Learned | None = None

    async def rungs(self) -> tuple[Rung, ...]:
        return (Rung(3000), Rung(2000), Rung(1000))

    async def need(self, rung: Rung, free: Amounts) -> Needed:
        """A GiB for every thousand tokens."""
        return Needed({"host": (rung.context or 0) * GIB // 1000}, Source.HEADER)

    async def learned(self) -> Learned | None:
        return self.known

    async def learn(self, learned: Learned) -> None:
        self.known = learned


def position(plan: Any = None) -> Position:
    return Position(cast(Plan, plan or Ladder()))


async def test_a_descent_goes_rung_by_rung_and_tells_what_each_said() -> None:
    steps = position()
    assert steps.rung is None
    assert await steps.take(WIDE) == Rung(3000)
    assert steps.step_down("no weights")
    assert await steps.take(WIDE) == Rung(2000)
    assert steps.step_down("no cache")
    assert await steps.take(WIDE) == Rung(1000)
    assert steps.is_last
    assert not steps.step_down("nothing left")
    assert steps.story() == "context 3000: no weights; context 2000: no cache; " + (
        "context 1000: nothing left"
    )


async def test_a_new_load_begins_where_the_last_one_held_and_with_a_clean_story() -> None:
    steps = position()
    await steps.take(WIDE)
    steps.step_down("no weights")
    await steps.take(WIDE)
    await steps.held()
    assert await steps.take(WIDE) == Rung(2000)
    assert steps.story("full") == "context 2000: full"


async def test_a_rung_that_held_only_for_a_while_is_part_of_the_story() -> None:
    steps = position()
    await steps.take(WIDE)
    await steps.held()
    steps.step_down("full, later")
    await steps.take(WIDE)
    await steps.held()
    assert steps.story("full, too") == "context 3000: full, later; context 2000: full, too"


async def test_what_one_request_suffered_is_not_remembered() -> None:
    plan = Ladder()
    steps = position(plan)
    await steps.take(WIDE)
    assert steps.step_down("says a request", proven=False)
    assert await steps.take(WIDE) == Rung(2000)
    await steps.held()
    assert plan.known is None
    assert await steps.take(WIDE) == Rung(3000), "the next load begins as if nothing had been"


async def test_what_a_second_request_suffers_on_the_same_rung_is_remembered() -> None:
    plan = Ladder()
    steps = position(plan)
    for _ in range(2):
        await steps.take(WIDE)
        steps.step_down("says a request", proven=False)
        await steps.take(WIDE)
        await steps.held()
    assert plan.known is not None
    assert plan.known.rung == Rung(2000)


async def test_a_suspicion_fades(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Ladder()
    steps = position(plan)
    now = 1e9
    monkeypatch.setattr(time, "time", lambda: now)
    for _ in range(3):
        await steps.take(WIDE)
        steps.step_down("says a request", proven=False)
        await steps.take(WIDE)
        await steps.held()
        now += plan.climb_interval + 1
    assert plan.known is None


async def test_one_request_that_no_rung_can_answer_proves_nothing() -> None:
    plan = Ladder()
    steps = position(plan)
    for _ in range(2):
        await steps.take(WIDE)
        steps.step_down("says a request", proven=False)
    await steps.take(WIDE)
    await steps.held()
    assert plan.known is None


async def test_a_load_that_fails_after_a_suspicion_is_proof_of_it() -> None:
    plan = Ladder()
    steps = position(plan)
    await steps.take(WIDE)
    steps.step_down("says a request", proven=False)
    await steps.take(WIDE)
    steps.step_down("no cache")
    await steps.take(WIDE)
    await steps.held()
    assert plan.known is not None
    assert plan.known.rung == Rung(1000)


async def test_an_accident_keeps_its_rung() -> None:
    plan = Ladder()
    steps = position(plan)
    await steps.take(WIDE)
    steps.step_down("no weights")
    await steps.take(WIDE)
    steps.stay()
    assert await steps.take(WIDE) == Rung(2000)
    assert plan.known is None


def of(free: float, most: float) -> Room:
    return Room({"host": int(free * GIB)}, {"host": int(most * GIB)})


@pytest.mark.parametrize(
    ("is_open", "room", "context", "story"),
    [
        (True, of(3, 3), 3000, ""),
        (True, of(2.5, 9), 2000, "context 3000: needs 3.0 GiB, 2.5 GiB are free; "),
        (True, of(0.5, 2), 2000, "context 3000: needs 3.0 GiB, 2.0 GiB can be had; "),
        (
            True,
            of(0, 0.5),
            1000,
            "context 3000: needs 3.0 GiB, 0.5 GiB can be had; "
            "context 2000: needs 2.0 GiB, 0.5 GiB can be had; ",
        ),
        (False, of(0, 3), 3000, ""),
        (False, of(0, 2.5), 2000, "context 3000: needs 3.0 GiB, 2.5 GiB can be had; "),
        (
            False,
            of(0, 0),
            1000,
            "context 3000: needs 3.0 GiB, 0.0 GiB can be had; "
            "context 2000: needs 2.0 GiB, 0.0 GiB can be had; ",
        ),
        (True, Room({}, {}), 3000, ""),
    ],
    ids=[
        "ours: the best that is free",
        "ours: what is free counts before what could be",
        "ours: what can be had, if nothing that is free suffices",
        "ours: the last one, if all is too little",
        "the operator's: others go for it",
        "the operator's: not beyond what can be had",
        "the operator's: the last one, if all is too little",
        "nobody knows what there is",
    ],
)
async def test_the_first_load_begins_where_there_is_room(
    is_open: bool, room: Room, context: int, story: str
) -> None:
    steps = position(Ladder(is_open=is_open))
    assert await steps.take(room) == Rung(context)
    assert steps.story("full") == f"{story}context {context}: full"


@pytest.mark.parametrize("is_open", [True, False])
async def test_with_less_memory_than_last_time_there_is_less_context(is_open: bool) -> None:
    plan = Ladder(is_open=is_open)
    plan.known = Learned(Rung(2000), at=time.time(), free=9 * GIB)
    assert await position(plan).take(of(1.5, 1.5)) == Rung(1000)


async def test_what_ran_out_is_not_begun_with_however_much_is_free() -> None:
    plan = Ladder(is_open=True)
    plan.known = Learned(Rung(2000), at=time.time(), free=8 * GIB)
    assert await position(plan).take(WIDE) == Rung(2000)


async def test_what_was_free_at_the_first_load_does_not_decide_for_good() -> None:
    steps = position(Ladder(is_open=True))
    for free, context in ((1.5, 1000), (2.5, 2000), (9, 3000), (2.5, 2000)):
        assert await steps.take(of(free, 9)) == Rung(context)
        await steps.held()


async def test_to_be_loaded_often_does_not_keep_a_model_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = Ladder(is_open=True)
    steps = position(plan)
    now = 1000.0
    monkeypatch.setattr("llamasup.children.position.time.time", lambda: now)
    await steps.take(of(3, 3))
    steps.step_down("no cache")
    for hours in range(2):
        await steps.take(of(4, 4))
        await steps.held()
        assert plan.known == Learned(Rung(2000), at=1000.0, free=4 * GIB)
        now = 1000.0 + hours * 1800
    now = 1000.0 + 3600
    assert await steps.take(of(5, 5)) == Rung(3000)


async def test_a_climb_that_fails_is_tried_again_only_after_its_interval() -> None:
    plan = Ladder()
    plan.known = Learned(Rung(2000), at=0, free=GIB)
    steps = position(plan)
    assert await steps.take(WIDE) == Rung(3000)
    steps.step_down("no cache")
    assert await steps.take(WIDE) == Rung(2000)
    await steps.held()
    assert plan.known.at > 0
    assert await steps.take(WIDE) == Rung(2000)


async def test_what_ran_out_while_others_held_memory_is_tried_as_soon_as_they_are_gone() -> None:
    plan = Ladder()
    steps = position(plan)
    await steps.take(of(4, 9))
    steps.step_down("no cache", crowded=True)
    await steps.take(of(4, 9))
    await steps.held()
    assert await steps.take(of(4, 9)) == Rung(2000)
    assert await steps.take(of(9, 9)) == Rung(3000)


async def test_a_need_that_was_only_measured_keeps_no_rung_out_for_good() -> None:
    class Measured(Ladder):
        async def need(self, rung: Rung, free: Amounts) -> Needed:
            word = (rung.context or 0) * GIB // 1000
            return Needed({"host": 3 * word}, Source.MEASURED, least={"host": word})

    assert await position(Measured()).take(of(3, 3)) == Rung(3000)
    assert await position(Measured(is_open=True)).take(of(3, 3)) == Rung(1000)


async def test_what_was_passed_over_is_told_with_what_was_tried() -> None:
    steps = position()
    await steps.take(of(0, 2))
    steps.step_down("no cache")
    assert await steps.take(of(0, 2)) == Rung(1000)
    assert steps.story("full") == (
        "context 3000: needs 3.0 GiB, 2.0 GiB can be had; context 2000: no cache;"
        " context 1000: full"
    )


async def test_a_rung_is_remembered_with_what_was_free_before_it_was_taken() -> None:
    plan = Ladder()
    steps = position(plan)
    await steps.take(of(5, 9))
    steps.step_down("no cache")
    await steps.take(of(4, 9))
    await steps.held()
    assert plan.known is not None
    assert (plan.known.rung, plan.known.free) == (Rung(2000), 4 * GIB)

"""A model goes down its ladder as far as it must, and begins again where it held."""

from __future__ import annotations

from typing import Any, cast

from llamasup.children.footing import Footing
from llamasup.children.plan import Plan
from llamasup.memory.ladder import Learned, Rung


class Ladder:
    """A plan of three rungs that remembers in memory."""

    rungs = (Rung(3000), Rung(2000), Rung(1000))
    climb_interval = 3600.0

    def __init__(self) -> None:
        self.known: Learned | None = None

    async def learned(self) -> Learned | None:
        return self.known

    async def learn(self, learned: Learned) -> None:
        self.known = learned


def footing(plan: Any = None) -> Footing:
    return Footing(cast(Plan, plan or Ladder()))


async def test_a_descent_goes_rung_by_rung_and_tells_what_each_said() -> None:
    steps = footing()
    assert steps.rung is None
    assert await steps.take() == Rung(3000)
    assert steps.step_down("no weights")
    assert await steps.take() == Rung(2000)
    assert steps.step_down("no cache")
    assert await steps.take() == Rung(1000)
    assert steps.is_last
    assert not steps.step_down("nothing left")
    assert steps.story() == "context 3000: no weights; context 2000: no cache; " + (
        "context 1000: nothing left"
    )


async def test_a_new_load_begins_where_the_last_one_held_and_with_a_clean_story() -> None:
    steps = footing()
    await steps.take()
    steps.step_down("no weights")
    await steps.take()
    await steps.held()
    assert await steps.take() == Rung(2000)
    assert steps.story("full") == "context 2000: full"


async def test_a_rung_that_held_only_for_a_while_is_part_of_the_story() -> None:
    steps = footing()
    await steps.take()
    await steps.held()
    steps.step_down("full, later")
    await steps.take()
    await steps.held()
    assert steps.story("full, too") == "context 3000: full, later; context 2000: full, too"


async def test_an_accident_keeps_its_rung() -> None:
    plan = Ladder()
    steps = footing(plan)
    await steps.take()
    steps.step_down("no weights")
    await steps.take()
    steps.stay()
    assert await steps.take() == Rung(2000)
    assert plan.known is None

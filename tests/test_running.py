"""A configuration takes effect as a whole or not at all, and what acts on it does so in order.

What that means for clients and children is in end_to_end/test_reload.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import wait_all_tasks_blocked

from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, Folders, PoolSettings, Server
from llamasup.errors import EngineUnusable, OperatorError
from llamasup.events import Journal
from llamasup.http.certificate import Certificate
from llamasup.models.library import Look
from llamasup.running import Running

FIRST = Config(server=Server(listen="first:1"), pool=PoolSettings(preload=("a", "c")))
SECOND = Config(server=Server(listen="second:2"), pool=PoolSettings(preload=("a", "b", "c")))


@define
class House:
    """All that a configuration reaches, and what it saw of the change, in order."""

    in_effect: InEffect = field(factory=lambda: InEffect(FIRST))
    seen: list[object] = field(factory=list)
    address_in_use: bool = False
    disk_answers: trio.Event = field(factory=trio.Event)
    keepers: dict[str, object] = field(factory=lambda: {"a": None, "b": None})

    def note(self, what: object) -> None:
        """With the address by which it goes."""
        self.seen.append((what, self.in_effect.config.server.listen[0]))

    # the library

    @property
    def library(self) -> House:
        return self

    def of(self, config: Config) -> House:
        return self

    async def look(self) -> Look:
        await self.disk_answers.wait()
        return Look({}, {}, {})

    # front, residency and roster

    def listen(self, addresses: Iterable[str]) -> None:
        if self.address_in_use:
            raise OperatorError("the address is in use")
        self.note("listen")

    def renew(self) -> None:
        self.note("renew")

    @property
    def residency(self) -> House:
        return self

    def wake(self) -> None:
        self.note("wake")

    @property
    def outside(self) -> House:
        return self

    @property
    def fleet(self) -> House:
        return self

    def follow(self, endpoints: object) -> None:
        self.note("follow")

    def replace(self, library: object, look: object) -> None:
        self.keepers = {}
        self.note("replace")

    def preload(self, models: Iterable[str]) -> None:
        self.note(["preload", *models])

    def running(self, prepare: Callable[[Config], Config] = lambda config: config) -> Running:
        certificate = Certificate(None, Journal())
        return Running(self.in_effect, prepare, *cast(Any, (self, self, self)), certificate)


@pytest.fixture
def house() -> House:
    house = House()
    house.disk_answers.set()
    return house


async def test_it_listens_first_then_all_act_by_what_is_in_effect(house: House) -> None:
    await house.running().change(lambda _: SECOND)
    assert house.in_effect.config == SECOND
    assert house.seen == [
        ("listen", "first:1"),
        ("renew", "second:2"),
        ("wake", "second:2"),
        ("follow", "second:2"),
        ("replace", "second:2"),
        # "a" is there already; "b" is new among the preloaded, and "c" was not there before.
        (["preload", "b", "c"], "second:2"),
    ]


async def test_an_engine_that_cannot_be_found_changes_nothing(house: House) -> None:
    def prepare(config: Config) -> Config:
        raise EngineUnusable("there is none")

    with pytest.raises(EngineUnusable):
        await house.running(prepare).change(lambda _: SECOND)
    assert (house.in_effect.config, house.seen) == (FIRST, [])


async def test_an_address_that_is_in_use_changes_nothing(house: House) -> None:
    house.address_in_use = True
    with pytest.raises(OperatorError):
        await house.running().change(lambda _: SECOND)
    assert (house.in_effect.config, house.seen) == (FIRST, [])


async def test_a_change_that_is_cancelled_changes_nothing_and_lets_the_next_one_begin() -> None:
    house = House()
    running = house.running()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.change, lambda _: SECOND)
        await wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    assert (house.in_effect.config, house.seen) == (FIRST, [])
    house.disk_answers.set()
    await running.change(lambda _: SECOND)
    assert house.in_effect.config == SECOND


async def test_each_change_is_made_of_what_the_one_before_has_put_into_effect(
    house: House,
) -> None:
    running = house.running()
    made_of: list[Config] = []

    def made(before: Config) -> Config:
        made_of.append(before)
        return SECOND

    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.change, made)
        nursery.start_soon(running.change, made)
    assert made_of == [FIRST, SECOND]


async def test_folders_stay_where_they_are_until_a_restart(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    moved = evolve(SECOND, folders=Folders(run=Path("/elsewhere")))
    await house.running().change(lambda _: moved)
    assert house.in_effect.config == SECOND
    assert "[folders] has changed" in caplog.text

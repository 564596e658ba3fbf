"""Looking is done when it matters, by one for all, not too often; and what it finds is offered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define, field, frozen
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, ModelSettings
from llamasup.errors import ModelNotFound
from llamasup.events import Journal
from llamasup.memory.gauge import Gauge
from llamasup.memory.machine import ThisMachine
from llamasup.models.library import Look
from llamasup.pool.pool import Pool
from llamasup.pool.roster import PAUSE, Roster


@frozen(eq=False)
class FakePlan:
    model: str
    settings: ModelSettings
    preloaded: bool = False

    def launches_like(self, other: FakePlan) -> bool:
        return self.settings == other.settings


@define
class FakeLibrary:
    """Offers what the test puts there, and can be slow about it."""

    models: dict[str, ModelSettings] = field(factory=dict)
    unreadable: dict[Path, str] = field(factory=dict)
    looks: int = 0
    may_look: trio.Event = field(factory=trio.Event)

    def put(self, *names: str) -> None:
        self.models = {name: ModelSettings(path=Path(f"{name}.gguf")) for name in names}

    async def look(self) -> Look:
        self.looks += 1
        await self.may_look.wait()
        return Look(dict(self.models), {}, dict(self.unreadable))


@define
class Stage:
    library: FakeLibrary
    pool: Pool
    roster: Roster


@asynccontextmanager
async def staged(*names: str) -> AsyncIterator[Stage]:
    """A roster that has looked once, a while ago."""
    library = FakeLibrary()
    library.put(*names)
    library.may_look.set()
    async with trio.open_nursery() as nursery:
        in_effect = InEffect(Config())
        pool = Pool((), in_effect, Gauge(ThisMachine()), Journal(), nursery)
        roster = Roster(library, FakePlan, pool, in_effect, nursery)  # type: ignore[arg-type]
        await roster.refresh()
        yield Stage(library, pool, roster)
        nursery.cancel_scope.cancel()


async def test_a_name_that_is_known_needs_no_look(mock_clock: MockClock) -> None:
    async with staged("x") as stage:
        mock_clock.jump(PAUSE)
        assert (await stage.roster.choose("X")).model == "x"
        assert stage.library.looks == 1


async def test_a_name_that_is_new_is_looked_for(mock_clock: MockClock) -> None:
    async with staged("x") as stage:
        mock_clock.jump(PAUSE)
        stage.library.put("x", "y")
        assert (await stage.roster.choose("y")).model == "y"
        assert list(stage.pool.keepers) == ["x", "y"]
        assert stage.roster.look.models.keys() == {"x", "y"}


async def test_without_a_name_the_first_model_to_come_is_meant(mock_clock: MockClock) -> None:
    async with staged() as stage:
        mock_clock.jump(PAUSE)
        stage.library.put("x")
        assert (await stage.roster.choose(None)).model == "x"


async def test_wrong_names_are_looked_for_once_a_second_and_refused_at_once_meanwhile(
    mock_clock: MockClock,
) -> None:
    async with staged("x") as stage:
        for seconds, looks in ((0, 1), (PAUSE, 2), (0, 2), (PAUSE / 2, 2), (PAUSE / 2, 3)):
            mock_clock.jump(seconds)
            with pytest.raises(ModelNotFound):
                await stage.roster.choose("y")
            assert stage.library.looks == looks


async def test_tasks_that_come_during_a_look_share_it(mock_clock: MockClock) -> None:
    async with staged("x") as stage:
        mock_clock.jump(PAUSE)
        stage.library.may_look = trio.Event()
        stage.library.put("y")
        chosen = []

        async def choose() -> None:
            chosen.append((await stage.roster.choose("y")).model)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(choose)
            await wait_all_tasks_blocked()
            assert chosen == []
            stage.library.may_look.set()
        assert (chosen, stage.library.looks) == (["y"] * 5, 2)


async def test_a_look_whose_client_leaves_counts_for_the_others(mock_clock: MockClock) -> None:
    async with staged("x") as stage:
        mock_clock.jump(PAUSE)
        stage.library.may_look = trio.Event()
        stage.library.put("y")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.roster.refresh)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        stage.library.may_look.set()
        await wait_all_tasks_blocked()
        assert list(stage.pool.keepers) == ["y"]
        assert (await stage.roster.choose("y")).model == "y"
        assert stage.library.looks == 2


async def test_a_model_that_went_is_not_there_any_more(mock_clock: MockClock) -> None:
    async with staged("x", "y") as stage:
        mock_clock.jump(PAUSE)
        stage.library.put("y")
        await stage.roster.refresh()
        assert list(stage.pool.keepers) == ["y"]
        with pytest.raises(ModelNotFound):
            await stage.roster.choose("x")


async def test_only_what_has_changed_is_planned_anew(mock_clock: MockClock) -> None:
    async with staged("x", "y") as stage:
        before = dict(stage.pool.keepers)
        mock_clock.jump(PAUSE)
        stage.library.models["y"] = ModelSettings(path=Path("elsewhere.gguf"))
        await stage.roster.refresh()
        assert stage.pool.keepers["x"] is before["x"]
        assert stage.pool.keepers["y"].plan.settings.path == Path("elsewhere.gguf")


async def test_news_are_logged_once(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with staged("x") as stage:
        assert caplog.messages == []
        stage.library.put("y", "z")
        stage.library.unreadable[Path("/models")] = "it is gone"
        for _ in range(2):
            mock_clock.jump(PAUSE)
            await stage.roster.refresh()
    assert caplog.messages == [
        "/models cannot be looked through for models: it is gone",
        "models that came: y, z",
        "models that went: x",
    ]

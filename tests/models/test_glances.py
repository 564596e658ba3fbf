"""Within a glance everything is looked at once; outside of one, each time."""

from __future__ import annotations

import pytest
import trio

from llamasup.models.glances import one_glance, seen


class Watched:
    def __init__(self) -> None:
        self.looks = 0

    async def look(self) -> int:
        self.looks += 1
        return self.looks


async def test_within_a_glance_nothing_is_looked_at_twice() -> None:
    one, other = Watched(), Watched()
    with one_glance():
        assert [await seen("one", one.look), await seen("one", one.look)] == [1, 1]
        assert [await seen("other", other.look), await seen("one", one.look)] == [1, 1]
    assert [await seen("one", one.look), await seen("one", one.look)] == [2, 3]
    with one_glance():
        assert await seen("one", one.look) == 4


async def test_a_look_that_fails_is_not_remembered() -> None:
    async def fail() -> int:
        raise OSError("the disk")

    with one_glance():
        with pytest.raises(OSError, match="the disk"):
            await seen("one", fail)
        assert await seen("one", Watched().look) == 1


async def test_a_glance_of_one_task_is_none_of_another() -> None:
    watched = Watched()

    async def looks() -> None:
        await trio.lowlevel.checkpoint()
        await seen("one", watched.look)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(looks)
        with one_glance():
            await seen("one", watched.look)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            await seen("one", watched.look)
    assert watched.looks == 2

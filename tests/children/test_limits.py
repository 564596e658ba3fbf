"""What is configured for children reaches those that run."""

from __future__ import annotations

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.children.limits import Limits
from llamasup.config.load import load


def of(**keys: object) -> Limits:
    return Limits.of(load(None, {}, {key.replace("__", "."): keys[key] for key in keys}))


def test_they_are_as_configured() -> None:
    limits = of(
        engine__load_timeout=1,
        engine__stop_grace=2,
        engine__max_child_memory=3,
        recovery__stall_timeout=4,
        recovery__health_interval=5,
        recovery__retirement=6,
    )
    found = attrs.astuple(limits, recurse=False)[:6]
    assert set(found) == {1, 2, 3, 4, 5, 6}


async def test_others_are_adopted_whole_and_end_a_pause(autojump_clock: MockClock) -> None:
    limits, other = of(recovery__stall_timeout=100), of(recovery__stall_timeout=7)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limits.pause, 1000)
        await wait_all_tasks_blocked()
        limits.adopt(other)
    assert trio.current_time() - began < 1
    named = [field.name for field in attrs.fields(Limits) if not field.name.startswith("_")]
    assert all(getattr(limits, name) == getattr(other, name) for name in named)
    await limits.pause(5)
    assert trio.current_time() - began >= 5

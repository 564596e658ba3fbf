"""The holder shows every change to its readers, and wakes the tasks that pause."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, Recovery, Seconds

OTHER = Config(recovery=Recovery(stall_timeout=Seconds(7)))


def test_it_holds_what_was_put_into_effect_last() -> None:
    in_effect = InEffect(Config())
    assert in_effect.config == Config()
    in_effect.replace(OTHER)
    assert in_effect.config is OTHER


async def test_a_change_ends_the_pauses_that_have_begun_and_no_later_one(
    autojump_clock: MockClock,
) -> None:
    in_effect = InEffect(Config())
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_effect.pause, 1000)
        nursery.start_soon(in_effect.pause, 2000)
        await wait_all_tasks_blocked()
        in_effect.replace(OTHER)
    assert trio.current_time() - began < 1
    await in_effect.pause(5)
    assert trio.current_time() - began >= 5

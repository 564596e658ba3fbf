"""Threads that hang are left behind, and one that cannot be started is a shortage."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llamasup import threads
from llamasup.shortages import is_shortage
from llamasup.threads import Lane
from tests.harness import no_threads


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """Waiting for it hangs until the end of the test."""
    event = threading.Event()
    yield event
    event.set()


async def test_what_a_thread_returns_or_raises_is_had() -> None:
    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 7, 0)


async def test_a_thread_that_hangs_is_left_behind_when_patience_ends(hung: threading.Event) -> None:
    with trio.fail_after(5), pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        await threads.run(hung.wait, patience=0.01)


async def test_a_thread_that_hangs_is_left_behind_on_cancellation(hung: threading.Event) -> None:
    with trio.fail_after(5), trio.move_on_after(0.01) as scope:
        await threads.run(hung.wait)
    assert scope.cancelled_caught


async def test_threads_that_hang_count_for_their_limit_alone(hung: threading.Event) -> None:
    limiter = trio.CapacityLimiter(1)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await threads.run(hung.wait, limiter=limiter, patience=0.01)
    assert limiter.borrowed_tokens == 1
    assert await threads.run(int, "7") == 7


async def test_a_thread_that_cannot_be_started_is_a_shortage() -> None:
    with no_threads(), pytest.raises(OSError, match="temporarily unavailable") as caught:
        await threads.run(int, "7")
    assert is_shortage(caught.value)
    assert await threads.run(int, "7") == 7


async def test_other_mistakes_are_no_shortage() -> None:
    def fail() -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        await threads.run(fail)


async def test_a_place_that_hangs_is_waited_for_once_until_it_answers(
    hung: threading.Event,
) -> None:
    lane = Lane(2)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        await lane.run(hung.wait, patience=0.01, place="far")
    with pytest.raises(TimeoutError, match="it has not answered yet"):
        await lane.run(hung.wait, patience=math.inf, place="far")
    assert await lane.run(int, "7", patience=5, place="near") == 7
    hung.set()
    with trio.fail_after(5):
        while True:
            with suppress(TimeoutError):
                assert await lane.run(int, "7", patience=5, place="far") == 7
                break
            await trio.sleep(0.01)


async def test_work_that_only_waits_in_line_does_not_count_as_hanging(
    hung: threading.Event,
) -> None:
    lane = Lane(1)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(partial(lane.run, hung.wait, patience=5, place="x"))
        await wait_all_tasks_blocked()
        hung.set()

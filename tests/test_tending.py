"""A task that falls: who notices, and who does not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llamasup import tending
from llamasup.children import child
from llamasup.children.keeper import Keeper
from llamasup.children.load import Load
from llamasup.engine.loglines import LogReader
from llamasup.front.guests import Guests
from llamasup.front.keepalive import Keepalive
from llamasup.front.server import Front
from llamasup.http.disconnects import Disconnects
from llamasup.pool.gate import Gate
from llamasup.pool.pool import Pool
from llamasup.pool.residency import Residency
from llamasup.pool.roster import PAUSE, Roster
from llamasup.reload import Follower
from llamasup.systemd import Notifier
from llamasup.tending import FIRST_PAUSE, LONGEST_PAUSE
from tests.harness import Llamasup, chat, eventually, no_threads, running

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"


class Falling:
    """A task that falls so many times, and then runs until cancelled."""

    def __init__(self, times: int, lasts: float = 0.0) -> None:
        self.left = times
        self.lasts = lasts
        self.began: list[float] = []

    async def run(self) -> None:
        self.began.append(trio.current_time())
        await trio.sleep(self.lasts)
        if self.left:
            self.left -= 1
            raise ValueError("by design")
        await trio.sleep_forever()


async def test_a_task_that_falls_alone_leaves_all_others_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tending.alone, "the taster", Falling(1).run)
        nursery.start_soon(trio.sleep, 0.01)
    assert "the taster fell" in caplog.text
    assert "by design" in caplog.text


async def test_a_task_begins_again_after_longer_and_longer_pauses(
    autojump_clock: MockClock,
) -> None:
    task = Falling(15)
    with trio.move_on_after(1000):
        await tending.again("the taster", task.run)
    pauses = [later - earlier for earlier, later in zip(task.began, task.began[1:], strict=False)]
    assert pauses[:3] == pytest.approx([FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4])
    assert max(pauses) == pytest.approx(LONGEST_PAUSE)
    assert not task.left


async def test_a_task_that_ran_for_a_while_begins_again_at_once(autojump_clock: MockClock) -> None:
    task = Falling(5, lasts=LONGEST_PAUSE + 1)
    with trio.move_on_after(1000):
        await tending.again("the taster", task.run)
    gaps = [later - earlier for earlier, later in zip(task.began, task.began[1:], strict=False)]
    assert gaps == pytest.approx([LONGEST_PAUSE + 1 + FIRST_PAUSE] * 5)


async def test_what_ends_is_not_begun_again() -> None:
    await tending.again("the taster", trio.sleep, 0)


async def test_a_cancellation_is_no_fall(caplog: pytest.LogCaptureFixture) -> None:
    async def falls_when_cancelled() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("by design")

    for tend in (tending.alone, tending.again):
        with trio.move_on_after(0.01) as scope:
            await tend("the taster", falls_when_cancelled)
        assert scope.cancelled_caught


def test_a_shortage_is_told_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    shortage = OSError(11, os.strerror(11))
    assert tending.tell_of_fall("x", ExceptionGroup("", [shortage])) == shortage.strerror
    assert len(caplog.text.splitlines()) == 1


# Every task of ours


class Once:
    """A function that falls the first time (or at another `call`), and is else as before."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int = 1
    ) -> None:
        self._call = call
        self._before = getattr(owner, name)
        self.calls = 0
        monkeypatch.setattr(owner, name, lambda *args, **more: self(*args, **more))

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.calls += 1
        if self.calls == self._call:
            raise ZeroDivisionError("by design")
        return self._before(*args, **more)


async def status(llamasup: Llamasup, model: str = "fake") -> int:
    return (await llamasup.ask("POST", CHAT, chat(1, model=model))).status


BEGIN_AGAIN = {
    "the residency's clock": (Residency, "_unload_idle"),
    "the lookout for clients": (Disconnects, "watch"),
    "the end of idle connections": (Guests, "resting"),
    "the keepalive": (Keepalive, "run"),
    "the watchdog of fake": (child, "watch"),
    "the reload at a SIGHUP": (Follower, "_heed"),
    "the watch over the configuration's file": (Follower, "_watch"),
    "the notifier of systemd": (Notifier, "keep_telling"),
}


@pytest.mark.parametrize("task", BEGIN_AGAIN)
async def test_a_task_that_all_need_begins_again_and_no_other_notices(
    task: str, faking: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    once = Once(monkeypatch, *BEGIN_AGAIN[task])
    often = {"server.keepalive_after": 0.1, "server.idle_timeout": 2}
    async with running({**faking(), **often}) as llamasup:
        assert await status(llamasup) == 200
        await eventually(lambda: once.calls > 1)
        assert await status(llamasup) == 200
    assert f"{task}" in caplog.text
    assert "by design" in caplog.text


async def test_a_log_that_cannot_be_understood_is_read_on(
    faking: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Once(monkeypatch, LogReader, "feed")
    async with running(faking()) as llamasup:
        assert await status(llamasup) == 200
    assert "'s log fell, and reads on" in caplog.text


async def test_a_listener_that_falls_costs_only_the_client_that_came(
    faking: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(faking()) as llamasup:
        Once(monkeypatch, Front, "_receive")
        with pytest.raises(EOFError):
            await status(llamasup)
        assert await status(llamasup) == 200
    assert "a listener fell, and begins again" in caplog.text


async def test_words_for_systemd_that_cannot_be_found_do_not_keep_it_waiting(
    faking: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    systemd = {**os.environ, "NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "20000"}
    systemd.pop("WATCHDOG_PID", None)
    once = Once(monkeypatch, Pool, "summary", call=2)  # the first is for "READY=1"
    async with running(faking(), systemd):
        await eventually(lambda: once.calls > 2)
    assert "the status for systemd fell" in caplog.text


FALL_ALONE = {
    "the keeper": (Load, "_serve", 503),
    "the keeper, by what its child falls by": (child.Child, "_until_ready", 503),
    "the keeper, by what it asks the residency": (Residency, "reconsider", 503),
    "the usher": (Gate, "_ready_child", 500),
}


@pytest.mark.parametrize("task", FALL_ALONE)
async def test_the_task_of_one_model_falls_alone_and_its_client_is_told(
    task: str, faking: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner, name, told = FALL_ALONE[task]
    async with running({**faking(), **faking(name="other")}) as llamasup:
        assert await status(llamasup, "other") == 200
        Once(monkeypatch, owner, name)
        reply = await llamasup.ask("POST", CHAT, chat(1, model="fake"))
        assert (reply.status, "fell" in str(reply.error) or "mistake" in str(reply.error)) == (
            told,
            True,
        )
        assert await status(llamasup, "other") == 200
        assert await status(llamasup) == 200
    assert f"{task.partition(',')[0].removeprefix('the ')} of fake fell" in caplog.text


async def test_a_preload_and_a_look_that_fall_fall_alone(
    faking: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    once = Once(monkeypatch, Keeper, "ready")
    async with running({**faking(), "pool.preload": ["fake"]}) as llamasup:
        await eventually(lambda: once.calls)
        assert await status(llamasup) == 200
        await trio.sleep(PAUSE)  # a look is due
        Once(monkeypatch, Roster, "_offer")
        assert await status(llamasup, "nobody") == 404
        assert await status(llamasup) == 200
    assert "a preload fell" in caplog.text
    assert "look at the library fell" in caplog.text


async def test_where_no_thread_can_be_started_a_model_is_refused_and_loads_later(
    faking: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    config = {**faking(), **faking(name="other")}
    async with running(config) as llamasup:
        assert await status(llamasup, "other") == 200
        with no_threads():
            reply = await llamasup.ask("POST", CHAT, chat(1, model="fake"))
            assert reply.status == 503
            assert "temporarily unavailable" in reply.error["message"]
            assert await status(llamasup, "other") == 200
            for path in ("/health", "/v1/models", "/modelFits"):
                assert (await llamasup.ask("GET", path)).status in (200, 503)
        await eventually(lambda: is_served(llamasup))
    assert "Traceback" not in caplog.text


async def is_served(llamasup: Llamasup) -> bool:
    return await status(llamasup) == 200


async def test_a_connection_that_the_kernel_cannot_watch_falls_alone(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with running(faking()) as llamasup:
        with monkeypatch.context() as kernel:
            kernel.setattr("llamasup.http.disconnects._Events.add", full)
            with pytest.raises(EOFError):
                await status(llamasup)
        assert await status(llamasup) == 200

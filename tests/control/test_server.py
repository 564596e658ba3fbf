"""Control falls alone, gets up again, and nobody hangs meanwhile."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import hypercorn.trio
import pytest
import trio
from trio.testing import MockClock

from llamasup.control.app import ControlApp
from llamasup.control.server import ControlServer
from tests.harness import Llamasup, Reply, chat, eventually, request, running

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"

FELLING = (
    b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: \xff\r\n\r\n"
)
"""What Hypercorn does not survive."""


async def fell(llamasup: Llamasup) -> None:
    """Make control fall, from inside: no client gets such a request through the front."""
    async with await trio.open_unix_socket(str(llamasup.run_folder / "control.sock")) as stream:
        await stream.send_all(FELLING)
        await stream.receive_some()


async def test_control_is_started_again_when_it_falls_and_clients_are_told_meanwhile(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamasup.control.server._FIRST_PAUSE", 1.0)
    replies: list[Reply] = []
    async with running(faking()) as llamasup:

        async def answered() -> bool:
            with trio.fail_after(5):
                replies.append(await llamasup.ask("GET", "/health"))
            return replies[-1].status == 200

        await fell(llamasup)
        await eventually(answered)
    assert [reply.error["code"] for reply in replies[:-1]] == ["engine_lost"] * (len(replies) - 1)
    assert {reply.status for reply in replies} == {502, 200}


async def test_what_is_being_answered_does_not_notice_that_control_falls(
    faking: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    slow = faking("--fake-token-delay", "0.01")
    async with running(slow) as llamasup, llamasup.connect() as client:
        await client.send(request("POST", CHAT, chat(50)))
        status, _ = await client.head()
        assert status == 200
        await fell(llamasup)
        await eventually(lambda: "control fell and is started again" in caplog.text)
        rest = await client.read_until(b"[DONE]")
        assert rest.count(b'"content":" ') == 50


async def test_a_request_with_the_felling_header_is_harmless_from_outside(faking: Fake) -> None:
    async with running(faking()) as llamasup, llamasup.connect() as client:
        await client.send(FELLING)
        status, _ = await client.head()
        assert status in (200, 400)
        assert (await llamasup.ask("GET", "/health")).status == 200


@pytest.mark.parametrize(
    ("size", "status"), [(100_000, 200), (600_000, 200), (1 << 20, 200), (5_000_000, 413)]
)
async def test_a_body_that_control_does_not_want_delays_no_request(
    faking: Fake, size: int, status: int
) -> None:
    async with running(faking()) as llamasup:
        for _ in range(3):
            with trio.fail_after(5):
                reply = await llamasup.ask("GET", "/health", b"x" * size)
            assert reply.status == status
        assert (await llamasup.ask("GET", "/health")).status == 200


async def test_llamasup_starts_though_control_falls_before_it_listens(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    falls = iter([OSError("no more sockets")])

    async def serve(*arguments: Any, **options: Any) -> None:
        for fall in falls:
            raise fall
        await hypercorn.trio.serve(*arguments, **options)

    monkeypatch.setattr("llamasup.control.server.serve", serve)
    with trio.fail_after(10):
        async with running(faking()) as llamasup:
            assert (await llamasup.ask("GET", "/health")).status == 200
    assert not list(falls)


async def test_control_does_not_wait_longer_for_a_fall_long_after_the_last_one(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    lifetimes = [0.0, 0.0, 0.0, 3600.0, 0.0]
    began: list[float] = []
    ended: list[float] = []

    async def serve(*_: object, task_status: trio.TaskStatus[None], **__: object) -> None:
        began.append(trio.current_time())
        task_status.started()
        await trio.sleep(lifetimes[len(began) - 1] if len(began) <= len(lifetimes) else math.inf)
        ended.append(trio.current_time())
        raise RuntimeError("a fall")

    monkeypatch.setattr("llamasup.control.server.serve", serve)
    async with trio.open_nursery() as nursery:
        app = cast(ControlApp, None)  # nobody asks it
        await nursery.start(ControlServer(Path("/nowhere/control.sock")).run, app)
        await trio.sleep(7200)
        nursery.cancel_scope.cancel()
    pauses = [start - end for start, end in zip(began[1:], ended, strict=True)]
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 0.2, 0.4])


async def test_what_control_says_of_engines_is_not_taken_for_an_engines_own_words(
    faking: Fake, tmp_path: Path
) -> None:
    words = "error while loading shared libraries: libcudart.so.12"
    engine = tmp_path / "llama-server"
    engine.write_text(f"#!/bin/sh\necho 'llama-server: {words}' >&2\nexit 127\n")
    engine.chmod(0o755)
    async with running({**faking(), "engine.command": str(engine)}) as llamasup:
        reply = await llamasup.ask("GET", "/modelFits")
    assert (reply.status, reply.error["code"]) == (503, "engine_unusable")
    assert words in reply.error["message"]


def test_want_of_descriptors_is_told_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise OSError(24, "Too many open files")
    except OSError:
        logging.getLogger("trio.serve_listeners").error("accept returned EMFILE", exc_info=True)
    assert "accept returned EMFILE" in caplog.text
    assert "Traceback" not in caplog.text

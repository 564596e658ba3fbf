"""Hypercorn serves the control app on a private Unix socket, and is started again if it falls.

Hypercorn never faces the network here, nor carries tokens: an uncaught exception in one of its
connections ends its `serve`, and it costs many times more per chunk than the relay.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve

from llamasup.config.addresses import Address, UnixAddress
from llamasup.control.app import ControlApp
from llamasup.engine.failures import Verdict

log = logging.getLogger(__name__)


def _plainly(record: logging.LogRecord) -> bool:
    """That nothing more can be opened is no mistake, which would need a traceback."""
    record.exc_info = None
    return True


logging.getLogger("trio.serve_listeners").addFilter(_plainly)

_LONGEST_HEAD = 1 << 30
"""No limit: the front has one (`server.max_head`), and adds some headers of its own."""
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0


class ControlServer:
    """An upstream for the relay, like a leased child."""

    def __init__(self, app: ControlApp, socket: Path) -> None:
        self._app = app
        self._socket = socket
        self._serving = trio.CancelScope()

    def move(self, socket: Path) -> None:
        """Listen there from now on: the old place is gone."""
        self._socket = socket
        self._serving.cancel()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return UnixAddress(str(self._socket))

    @property
    def withheld(self) -> Collection[bytes]:
        """It looks at keys itself."""
        return ()

    def __str__(self) -> str:
        return "control"

    async def survived(self) -> bool:
        """Its replies have a length: none ends by a close."""
        return False

    def progressed(self) -> None:
        """Nobody watches over control in that way."""

    def held_up(self) -> AbstractContextManager[None]:
        """Nor in that."""
        return nullcontext()

    def verdict(self, status: int, message: str, size: int) -> Verdict:
        """It may tell of an engine whose memory ran out; its own did not."""
        return Verdict.ITS_OWN

    def out_of_memory(self, words: str) -> bool:
        """It is this process: there is no smaller one."""
        return False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started` is reported when it first listens."""
        pause = _FIRST_PAUSE
        while True:
            began = trio.current_time()
            try:
                with trio.CancelScope() as self._serving:
                    async with trio.open_nursery() as nursery:
                        await nursery.start(self._serve)
                        task_status.started()
                        task_status = trio.TASK_STATUS_IGNORED
            except* Exception as errors:
                log.error("control fell and is started again", exc_info=errors)
            if trio.current_time() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            await trio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _serve(self, task_status: trio.TaskStatus[object]) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._socket)
        await serve(
            self._app,  # type: ignore[arg-type]
            self._settings(),
            shutdown_trigger=trio.sleep_forever,
            task_status=task_status,
        )

    def _settings(self) -> HypercornConfig:
        settings = HypercornConfig()
        settings.bind = [f"unix:{self._socket}"]
        settings.accesslog = None
        settings.errorlog = None
        settings.graceful_timeout = 0.5
        settings.h11_max_incomplete_size = _LONGEST_HEAD
        return settings

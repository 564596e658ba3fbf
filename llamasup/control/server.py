"""Hypercorn serves the control app on a private Unix socket, and is started again if it falls.

Hypercorn is never reached from the network and never carries tokens: an uncaught exception in one
of its connections ends its `serve`, and it needs many times more time for a chunk than the relay.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve

from llamasup.config.addresses import UnixAddress
from llamasup.control.app import ControlApp
from llamasup.http.wire import Wire, dial
from llamasup.upstream import Upstream

log = logging.getLogger(__name__)


def _plainly(record: logging.LogRecord) -> bool:
    """Log without a traceback: Hypercorn logs here that descriptors are short, which is no bug."""
    record.exc_info = None
    return True


logging.getLogger("trio.serve_listeners").addFilter(_plainly)

_LONGEST_HEAD = 1 << 30
"""No limit here: the front has one (`server.max_head`), and adds some headers itself."""
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0


class ControlServer(Upstream):
    """An upstream for the relay, like a leased child."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._serving = trio.CancelScope()

    def move(self, socket: Path) -> None:
        """Listen on another socket from now on: the old one was removed."""
        self._socket = socket
        self._serving.cancel()

    def __str__(self) -> str:
        return "control"

    async def connect(self) -> Wire:
        """See `Upstream.connect`."""
        return await dial(UnixAddress(str(self._socket)))

    async def run(
        self, app: ControlApp, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve `app` until cancelled; reports that it has started when it first listens."""
        pause = _FIRST_PAUSE
        while True:
            began = trio.current_time()
            try:
                with trio.CancelScope() as self._serving:
                    async with trio.open_nursery() as nursery:
                        await nursery.start(self._serve, app)
                        task_status.started()
                        task_status = trio.TASK_STATUS_IGNORED
            except* Exception as errors:
                log.error("control fell and is started again", exc_info=errors)
            if trio.current_time() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            await trio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _serve(self, app: ControlApp, task_status: trio.TaskStatus[object]) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._socket)
        await serve(
            app,  # type: ignore[arg-type]
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

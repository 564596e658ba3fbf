"""Tells systemd how llamasup is (`Type=notify`, `WatchdogSec`); does nothing without systemd."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import trio

from llamasup.tending import tell_of_fall

log = logging.getLogger(__name__)


class Notifier:
    """Sends lines to `$NOTIFY_SOCKET`, if that is set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = int(environ.get("WATCHDOG_USEC", "0")) / 1e6 if for_us else 0.0

    def tell(self, *lines: str) -> None:
        """Send lines such as `READY=1`. If they cannot be sent, that does no harm."""
        if not self._address:
            return
        # "@" stands for the abstract namespace.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        message = "\n".join(lines).encode(errors="replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(message, address)
        except OSError as error:
            log.debug("systemd cannot be told: %s", error)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell systemd that a reload begins (`Type=notify-reload`), and that it ends, however
        so."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self.tell("READY=1")

    async def keep_telling(self, status: Callable[[], str]) -> None:
        """Say that llamasup lives, twice as often as the watchdog wants it; until cancelled.

        While the event loop is stuck this task gets no turn, so the watchdog hears nothing.
        """
        if not self._watchdog:
            return
        while True:
            self.tell("WATCHDOG=1", f"STATUS={_said(status)}")
            await trio.sleep(self._watchdog / 2)


def _said(status: Callable[[], str]) -> str:
    """The status, or why there is none: the watchdog must be told in any case."""
    try:
        return status()
    except Exception as error:
        return tell_of_fall("the status for systemd", error)

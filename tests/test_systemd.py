"""systemd hears that llamasup is ready, that it lives, and that it stops."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from llamasup.systemd import Notifier
from tests.harness import out_of_descriptors, running

PATIENCE = 5.0


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def test_without_a_systemd_nothing_happens() -> None:
    Notifier({}).tell("READY=1")


def test_a_systemd_that_does_not_listen_is_no_failure(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell("READY=1")


async def test_the_watchdog_is_fed_twice_as_often_as_it_bites(
    systemd: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    environ = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": str(30 * 10**6)}
    notifier = Notifier(environ | {"WATCHDOG_PID": str(os.getpid())})
    with trio.move_on_after(40):
        await notifier.keep_telling(lambda: "fine")
    assert [systemd.recv(999) for _ in range(3)] == [b"WATCHDOG=1\nSTATUS=fine"] * 3


async def test_a_watchdog_of_another_process_is_not_ours_to_feed(systemd: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "1000"}
    with trio.fail_after(PATIENCE):
        await Notifier(environ | {"WATCHDOG_PID": "1"}).keep_telling(lambda: "fine")


async def test_llamasup_says_when_requests_are_welcome(
    systemd: socket.socket, counting: dict[str, object]
) -> None:
    async with running(counting, {**os.environ, "NOTIFY_SOCKET": systemd.getsockname()}):
        message = systemd.recv(999)
    assert message == b"READY=1\nSTATUS=0 of 1 models loaded, 0 requests in flight"


def test_a_reload_is_told_with_its_time_and_its_end_however_it_ends(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    before = time.monotonic_ns() // 1000
    with pytest.raises(ValueError, match="broken"), notifier.reloading():
        raise ValueError("broken")
    reloading, stamp = systemd.recv(999).decode().split("\n")
    assert reloading == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert systemd.recv(999) == b"READY=1"


def test_a_status_may_name_a_model_whose_file_has_a_name_that_is_no_text(
    systemd: socket.socket,
) -> None:
    Notifier({"NOTIFY_SOCKET": systemd.getsockname()}).tell("STATUS=caf\udce9")
    assert systemd.recv(999) == b"STATUS=caf?"


def test_that_there_is_no_descriptor_to_tell_it_with_is_no_failure(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    with out_of_descriptors():
        notifier.tell("WATCHDOG=1")
    notifier.tell("READY=1")
    assert systemd.recv(999) == b"READY=1"

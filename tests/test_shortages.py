"""A shortage is told from a verdict, and there are as many descriptors as the system grants."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from llamasup.shortages import Spare, have_descriptors, is_shortage, most_connections
from tests.harness import out_of_descriptors

INFINITE = resource.RLIM_INFINITY


class Limit:
    """The limit of a system, which sets none above `most`."""

    def __init__(self, soft: int, hard: int, most: int = 1 << 40) -> None:
        self.soft, self.hard, self.most = soft, hard, most

    def get(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.soft, self.hard

    def set(self, which: int, limits: tuple[int, int]) -> None:
        soft, hard = limits
        assert hard == self.hard
        if soft > self.most or soft > hard != INFINITE:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = soft


@pytest.fixture
def descriptors() -> Iterator[tuple[int, int]]:
    """The limits of this very process, which are as before after the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_without_descriptors_suffers_a_shortage() -> None:
    with out_of_descriptors(), pytest.raises(OSError, match="open files") as caught:
        socket.socket()
    assert is_shortage(caught.value)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ETIMEDOUT])
def test_what_will_fail_again_is_no_shortage(number: int) -> None:
    assert not is_shortage(OSError(number, os.strerror(number)))


def test_the_limit_is_raised_as_far_as_we_may(descriptors: tuple[int, int]) -> None:
    _, hard = descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    have_descriptors(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 1 << 20), hard)


@pytest.mark.parametrize(
    ("limit", "then"),
    [
        (Limit(1024, 4096), 4096),
        (Limit(1024, 1 << 30), 1 << 20),
        (Limit(256, INFINITE, most=10_240), 10_240),
        (Limit(20_000, INFINITE, most=10_240), 20_000),
        (Limit(256, 256), 256),
        (Limit(INFINITE, INFINITE), INFINITE),
    ],
    ids=["usual", "absurd", "macOS", "higher already", "nothing to be had", "no limit"],
)
def test_each_system_gives_what_it_gives(
    limit: Limit, then: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", limit.get)
    monkeypatch.setattr(resource, "setrlimit", limit.set)
    have_descriptors(1)
    assert limit.soft == then


@pytest.mark.parametrize(("connections", "warned"), [(4096, True), (2048, True), (1024, False)])
def test_more_connections_than_there_are_descriptors_for_are_warned_of(
    connections: int,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = Limit(1024, 4096)
    monkeypatch.setattr(resource, "getrlimit", limit.get)
    monkeypatch.setattr(resource, "setrlimit", limit.set)
    have_descriptors(connections)
    assert (f"server.max_connections ({connections}) may take" in caplog.text) is warned
    assert ("this process may have 4096: raise the limit" in caplog.text) is warned


@pytest.mark.parametrize(
    ("limit", "most"), [(INFINITE, 4096), (20_000, 4096), (8192, 3968), (1024, 384), (256, 64)]
)
def test_a_default_number_is_made_to_fit_without_a_warning(
    limit: int, most: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    system = Limit(limit, limit)
    monkeypatch.setattr(resource, "getrlimit", system.get)
    monkeypatch.setattr(resource, "setrlimit", system.set)
    have_descriptors("auto")
    assert most_connections("auto") == most
    assert most_connections(9) == 9
    assert caplog.text == ""


def test_a_spare_descriptor_is_there_when_no_other_is() -> None:
    spare = Spare()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/dev/fd")))
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        spare.give_up()
        spare.give_up()
        os.close(os.open(os.devnull, os.O_RDONLY))
        spare.keep()
        spare.keep()
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        spare.give_up()
        for descriptor in taken:
            os.close(descriptor)

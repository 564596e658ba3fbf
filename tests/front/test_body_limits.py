"""A body has a size, a rate and chunks that are worth their framing."""

from __future__ import annotations

import time

import pytest

from llamasup.config.schema import Seconds
from llamasup.errors import BodyTooLarge, MalformedRequest
from llamasup.front.body_limits import BodyLimits, check_chunks, take_content
from llamasup.http.framing import Chunked, Counted

BEGAN = 1000.0


def limits(longest: int = 100) -> BodyLimits:
    return BodyLimits(longest, "server.max_body", Seconds(30), BEGAN)


def test_a_body_may_be_as_large_as_that_and_no_larger() -> None:
    limits(100).check(100)
    with pytest.raises(BodyTooLarge, match=r"over 100 bytes \(server.max_body\)"):
        limits(100).check(101)


def test_a_client_may_pause_as_long_as_it_has_sent_enough_before() -> None:
    megabyte = 1 << 20
    assert limits().deadline(0, BEGAN) == BEGAN + 30
    assert limits().deadline(megabyte, BEGAN + 1) == BEGAN + 31
    assert limits().deadline(megabyte, BEGAN + 80) == BEGAN + 30 + 64


def test_single_bytes_do_not_buy_time() -> None:
    """One each twenty seconds: an hour would do for 180 of them, and 60,000 connections."""
    assert limits().deadline(2, BEGAN + 29) < BEGAN + 30.001


def test_the_time_in_which_we_do_not_read_is_not_the_clients() -> None:
    extended = limits()
    extended.extend(100)
    assert extended.deadline(0, BEGAN + 100) == BEGAN + 130


def test_content_comes_without_its_framing_and_in_steps() -> None:
    inbox = bytearray(b"12345next")
    framing = Counted(5)
    assert take_content(framing, inbox, 3) == b"123"
    assert take_content(framing, inbox, 3) == b"45"
    assert framing.done
    assert inbox == b"next"
    inbox = bytearray(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nnext")
    chunked = Chunked(bytearray())
    found = b"".join(take_content(chunked, inbox, 4) for _ in range(6))
    assert (found, inbox, chunked.done) == (b"abcde", b"next", True)


def test_a_bad_framing_is_the_clients_fault() -> None:
    with pytest.raises(MalformedRequest, match="badly framed"):
        take_content(Chunked(bytearray()), bytearray(b"x\r\n"), 99)


def received(wire: bytes) -> int:
    """The size of what comes through, or where it is refused."""
    framing, inbox, size = Chunked(bytearray()), bytearray(wire), 0
    while inbox:
        size += len(take_content(framing, inbox, 8 << 10))
        check_chunks(framing, size)
    return size


def test_many_single_bytes_are_refused_before_they_cost_much() -> None:
    started = time.process_time()
    with pytest.raises(MalformedRequest, match="too small"):
        received(b"1\r\na\r\n" * 1_000_000)
    assert time.process_time() - started < 0.3  # it was 1.35 s, and more the more there was


@pytest.mark.parametrize(("size", "number"), [(1, 16_000), (4, 16_000), (100, 50_000)])
def test_a_client_that_writes_little_by_little_is_read(size: int, number: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (size, b"a" * size)
    assert received(chunk * number + b"0\r\n\r\n") == size * number

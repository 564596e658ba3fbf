"""Framing finds the end of every legal body, however it is cut, and refuses the rest."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.http.framing import LAST_CHUNK, Chunked, Counted, FramingError, UntilClose, chunk

chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
trailers = st.lists(st.sampled_from([b"X-Sum: 1\r\n", b"A: b\r\n"]), max_size=2)
after = st.binary(max_size=20)


def chunked(contents: list[bytes], trailer: list[bytes]) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(content), content) for content in contents)
    return framed + b"0\r\n" + b"".join(trailer) + b"\r\n"


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_what_is_framed_here_is_read_as_it_was(contents: list[bytes]) -> None:
    message = b"".join(map(chunk, contents)) + LAST_CHUNK
    payload = bytearray()
    body = Chunked(payload)
    assert body.feed(message) == len(message)
    assert body.done
    assert payload == b"".join(contents)


def feed_in_parts(body: Chunked, message: bytes, cuts: list[int]) -> int:
    """Feed `message` cut at `cuts`, until the body is done; how much of it was taken."""
    taken = 0
    edges = sorted({min(cut, len(message)) for cut in cuts} | {0, len(message)})
    for start, stop in pairwise(edges):
        taken += body.feed(message[start:stop])
        if body.done:
            break
    return taken


@given(chunks, trailers, after, st.lists(st.integers(0, 300)))
def test_a_legal_chunked_body_ends_where_it_ends_however_it_is_cut(
    contents: list[bytes], trailer: list[bytes], rest: bytes, cuts: list[int]
) -> None:
    message = chunked(contents, trailer)
    payload = bytearray()
    body = Chunked(payload)
    assert feed_in_parts(body, message + rest, cuts) == len(message)
    assert body.done
    assert payload == b"".join(contents)


@given(chunks, st.integers(0, 300))
def test_the_edge_is_where_the_last_whole_chunk_ends(contents: list[bytes], cut: int) -> None:
    message = chunked(contents, [])
    ends, end = [0], 0
    for content in contents:
        end += len(chunked([content], [])) - len(b"0\r\n\r\n")
        ends.append(end)
    cut = min(cut, len(message))
    body = Chunked()
    body.feed(message[:cut])
    assert body.edge == (cut if body.done else max(end for end in ends if end <= cut))


@pytest.mark.parametrize("contents", [[b"hello", b"\r\n0\r\n\r\n"], [b"x" * 17], []])
def test_every_single_cut_of_a_body_gives_the_same_content(contents: list[bytes]) -> None:
    message = chunked(contents, [b"T: 1\r\n"])
    for cut in range(len(message) + 1):
        for second in range(cut, len(message) + 1):
            payload = bytearray()
            body = Chunked(payload)
            assert feed_in_parts(body, message, [cut, second]) == len(message)
            assert payload == b"".join(contents)


@given(chunks, trailers, st.integers(0, 300))
def test_a_chunked_body_that_is_cut_short_is_not_done(
    contents: list[bytes], trailer: list[bytes], length: int
) -> None:
    message = chunked(contents, trailer)
    body = Chunked()
    body.feed(message[: min(length, len(message) - 1)])
    assert not body.done


@pytest.mark.parametrize(
    "message",
    [
        b"5;name=value\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5_0\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"\r\nhello\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n\n",
        b"5\r\nhello\rX",
        b"fffffffffffffffff\r\n",
        b"0\r\nTrailer: x\n\r\n",
        b"0\r\n" + b"T: " + b"x" * 9000 + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 10_000])
def test_a_chunk_that_two_servers_might_read_differently_is_refused(
    message: bytes, step: int
) -> None:
    cuts = list(range(0, len(message), step))
    with pytest.raises(FramingError):
        feed_in_parts(Chunked(), message, cuts)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_no_bytes_make_chunked_framing_fail_in_another_way(data: bytes, cuts: list[int]) -> None:
    body = Chunked()
    with suppress(FramingError):
        assert feed_in_parts(body, data, cuts) <= len(data)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_how_garbage_is_cut_does_not_change_the_verdict(data: bytes, cuts: list[int]) -> None:
    def verdict(cuts: list[int]) -> object:
        payload = bytearray()
        body = Chunked(payload)
        try:
            return feed_in_parts(body, data, cuts), body.done, payload
        except FramingError:
            return "refused"

    assert verdict(cuts) == verdict([])


@given(st.integers(0, 50), st.lists(st.binary(max_size=20)))
def test_a_counted_body_takes_its_length_and_no_more(length: int, parts: list[bytes]) -> None:
    body = Counted(length)
    taken = 0
    for part in parts:
        taken += body.feed(part)
    assert taken == min(length, sum(map(len, parts)))
    assert body.done == (taken == length)


def test_a_body_until_close_takes_everything_and_never_ends_by_itself() -> None:
    body = UntilClose()
    assert body.feed(b"x" * 100) == 100
    assert not body.done


@pytest.mark.parametrize(
    ("before", "data", "expected"),
    [
        (b"", b"3\r\nabc\r\n", True),
        (b"1\r\na\r\n", b"3\r\nabc\r\n", True),
        (b"", b"3\r\nabc\r\n1\r\na\r\n", False),
        (b"", b"3\r\nabcd\r\n", False),
        (b"", b"3\r\nab\r\n", False),
        (b"", b"3\r\nabc\n\r", False),
        (b"", b"3;a\r\nabc\r\n", False),
        (b"", b"0\r\n\r\n", False),
        (b"9\r\nab", b"3\r\nabc\r\n", False),
        (b"0", b"3\r\nabc\r\n", False),
        (b"0\r\n", b"3\r\nabc\r\n", False),
        (b"", b"", False),
    ],
)
def test_the_next_chunk_is_known_where_it_comes_alone_and_whole(
    before: bytes, data: bytes, expected: bool
) -> None:
    body = Chunked()
    body.feed(before)
    assert body.is_next(data) is expected

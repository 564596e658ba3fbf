"""A stream's events become lines, wherever the stream is cut into pieces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.apis.translation import LONGEST_EVENT, Reply
from llamasup.errors import EngineFailed

STREAM = (
    b': ping\n\ndata: {"a":1}\n\nevent: x\r\ndata: {"b":2}\r\n\r\nerror: {"c":3}\n\n'
    b"data: end\n\ndata: after the end\n\n"
)
TOLD = b'{"a":1}\n{"b":2}\n{"c":3}\nend\n'


class Copy(Reply):
    """Tells each event's data as it is, up to the word "end"."""

    def whole(self, body: bytes) -> bytes:
        return body

    def _told(self, data: bytes) -> Iterator[bytes]:
        self.ended = data == b"end"
        yield data + b"\n"


@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_a_stream_that_is_cut_anywhere_gives_the_same_lines(cuts: list[int]) -> None:
    edges = [0, *cuts, len(STREAM)]
    reply = Copy()
    pieces = (STREAM[start:end] for start, end in pairwise(edges))
    assert b"".join(map(reply.lines, pieces)) == TOLD
    assert reply.ended


def test_a_line_is_told_as_soon_as_its_event_has_come() -> None:
    reply = Copy()
    assert reply.lines(b"data: 1") == b""
    assert reply.lines(b"\n") == b"1\n"
    assert not reply.ended


def test_an_event_without_end_is_refused() -> None:
    reply = Copy()
    reply.lines(b"data: " + b"x" * (LONGEST_EVENT - 6))
    with pytest.raises(EngineFailed, match="no end"):
        reply.lines(b"x")


def test_an_answer_that_is_told_as_a_whole_has_no_lines() -> None:
    class Whole(Reply):
        def whole(self, body: bytes) -> bytes:
            return body

    with pytest.raises(EngineFailed, match="not asked for one"):
        Whole().lines(b"data: {}\n\n")

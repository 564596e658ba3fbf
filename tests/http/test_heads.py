"""What two servers might read differently is refused; all else is left to whoever reads it."""

from __future__ import annotations

import pytest

from llamasup.http.heads import (
    MOST_HEADERS,
    BadHead,
    TooManyLines,
    refuse_ambiguity,
    refuse_bare_newlines,
)


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"a first line", *lines, b"", b""])


@pytest.mark.parametrize(
    "line",
    [
        b"X: 1",
        b"X:",
        b"X: \xe9",
        b"X: a\tb",
        b"Content-Length: 5 ",
        b"Content-Length: " + b"9" * 18,
    ],
)
def test_what_has_one_meaning_passes(line: bytes) -> None:
    refuse_ambiguity(head(line))
    refuse_ambiguity(head(*[line] * (1 if line.startswith(b"Content") else MOST_HEADERS)))


@pytest.mark.parametrize(
    "lines",
    [
        [b"X: a\nb"],
        [b"X: a\rb"],
        [b"X: a\r"],
        [b"X: a", b" b"],
        [b"X: a", b"\tb"],
        [b"Content-Length: 1", b"content-length: 1"],
        [b"Content-Length:"],
        [b"Content-Length: -1"],
        [b"Content-Length: 1 1"],
        [b"Content-Length: " + b"9" * 19],
        *([b"X: " + bytes([control])] for control in (*range(9), *range(10, 32), 127)),
    ],
)
def test_what_has_two_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(BadHead):
        refuse_ambiguity(head(*lines))


def test_far_too_many_lines_are_refused() -> None:
    with pytest.raises(TooManyLines, match="100 headers"):
        refuse_ambiguity(head(*[b"X: 1"] * (MOST_HEADERS + 1)))


def test_a_bare_newline_is_refused_before_the_head_is_whole() -> None:
    refuse_bare_newlines(b"GET / HTTP/1.1\r\nHo")
    with pytest.raises(BadHead):
        refuse_bare_newlines(b"GET / HTTP/1.1\nHo")

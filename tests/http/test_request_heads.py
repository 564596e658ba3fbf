"""Two ways to read a head: what the quick one accepts, both read alike."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamasup.errors import LlamasupError
from llamasup.http.request_heads import Head, read_any, read_head, read_ordinary

CURL = (
    b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\n"
    b"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: 123\r\n\r\n"
)


def test_an_ordinary_head_is_read() -> None:
    assert read_ordinary(CURL) == Head(
        b"POST",
        b"/v1/chat/completions?a=b",
        [
            (b"host", b"localhost:8080"),
            (b"user-agent", b"curl/8.5.0"),
            (b"accept", b"*/*"),
            (b"content-type", b"application/json"),
            (b"content-length", b"123"),
        ],
        http_1_0=False,
    )
    assert read_ordinary(CURL) == read_any(CURL)


@pytest.mark.parametrize(
    ("ordinary", "unusual"),
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"POST /", b"post /"),
        (b"POST /", b"POST http://a/"),
        (b"POST /", b"POST  /"),
        (b"Host: localhost:8080\r\n", b""),
        (b"Host: localhost:8080\r\n", b"Host: a\r\nHost: a\r\n"),
        (b"Host: ", b"Host:"),
        (b"Host: ", b"Host : "),
        (b"Host: ", b"Host:  "),
        (b"8080\r\n", b"8080 \r\n"),
        (b"8080\r\n", b"8080\n"),
        (b"8080\r\n", b"8080\r"),
        (b"*/*\r\n", b"*/*\r\n b\r\n"),
        (b"*/*", b"\xe9"),
        (b"*/*", b"a\tb"),
        (b"*/*", b""),
        (b"User-Agent", b"User_Agent"),
        (b"Content-Length: 123", b"Content-Length: +123"),
        (b"Content-Length: 123", b"Content-Length: 1234567890123456789"),
        (b"Content-Length: 123", b"Content-Length: 123\r\nContent-Length: 123"),
        (b"Content-Length: 123", b"Transfer-Encoding: chunked"),
        (b"\r\n\r\n", b"\r\n\r\n\r\n"),
        (b"\r\n\r\n", b"\r\n"),
    ],
)
def test_anything_unusual_is_left_to_h11(ordinary: bytes, unusual: bytes) -> None:
    assert ordinary in CURL
    assert read_ordinary(CURL.replace(ordinary, unusual, 1)) is None


def test_far_too_many_headers_are_left_to_be_refused() -> None:
    lines = b"".join(b"X-%d: 1\r\n" % number for number in range(100))
    assert read_ordinary(b"GET / HTTP/1.1\r\n" + lines + b"Host: a\r\n\r\n") is None


PIECES = [
    *(b"GET", b"POST", b"CONNECT", b"get", b" ", b"/", b"/a?b=c", b"*", b"http://a/"),
    *(b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b"\t", b"\x00", b"\xff", b":", b": "),
    *(b"Host", b"host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect"),
    *(b"Upgrade", b"a", b"0", b"12", b"-1", b"chunked", b"close", b"100-continue", b"h2c"),
    *(b"[::1]:80", b"X-" + b"y" * 70, b"1" * 19, b'"', b",", b"@", b"_"),
]
lines_of_heads = st.lists(
    st.builds(
        b"".join,
        st.one_of(
            st.tuples(
                st.sampled_from([b"Host", b"Content-Length", b"Transfer-Encoding", b"X", b"x-y"]),
                st.sampled_from([b": ", b":", b" : ", b":  "]),
                st.sampled_from([b"a", b"5", b"chunked", b"", b"a b", b"a  ", b"\xe9", b"5, 5"]),
            ),
            st.lists(st.sampled_from(PIECES), max_size=4),
        ),
    ),
    max_size=6,
)
heads = st.builds(
    lambda method, target, version, lines: b"\r\n".join(
        [b" ".join([method, target, version]), *lines, b"", b""]
    ),
    st.sampled_from([b"GET", b"POST", b"CONNECT", b"g", b"BREW-COFFEE", b"A" * 21]),
    st.sampled_from([b"/", b"/a?b", b"*", b"a", b"http://a/", b"/\x7f", b"/ b", b"/\xe9"]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/11", b"http/1.1"]),
    lines_of_heads,
)


@given(head=st.one_of(heads, st.lists(st.sampled_from(PIECES)).map(b"".join)))
@example(head=CURL)
def test_what_is_ordinary_h11_reads_in_the_same_way(head: bytes) -> None:
    if (ordinary := read_ordinary(head)) is not None:
        assert read_any(head) == ordinary


@given(at=st.integers(0, len(CURL)), piece=st.sampled_from(PIECES), length=st.integers(0, 3))
def test_nor_does_a_change_make_them_differ(at: int, piece: bytes, length: int) -> None:
    changed = CURL[:at] + piece + CURL[at + length :]
    if (ordinary := read_ordinary(changed)) is not None:
        assert read_any(changed) == ordinary


@given(at=st.integers(0, len(CURL)), byte=st.binary(min_size=1, max_size=1))
def test_whatever_is_changed_is_read_or_refused(at: int, byte: bytes) -> None:
    try:
        head = read_head(CURL[:at] + byte + CURL[at:])
    except LlamasupError:
        return
    assert head.method

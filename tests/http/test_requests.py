"""Heads become requests, or errors that say what is wrong; what is forwarded is ours alone."""

from __future__ import annotations

import re

import pytest

from llamasup.errors import (
    ClientError,
    ExpectationFailed,
    HeadTooLarge,
    LlamasupError,
    MalformedRequest,
    NotImplementedByProxy,
)
from llamasup.front.body_limits import take_content
from llamasup.http.framing import Chunked, Counted
from llamasup.http.requests import Request, origin_form, parse_head, take_head

LONGEST = 1000


def head(*headers: str, line: str = "POST /tokenize HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: a", *headers, "", ""]).encode("latin-1")


def forwarded(request: Request) -> dict[bytes, bytes]:
    """The headers that an engine gets, names in lower case."""
    lines = request.forwarded(b"/somewhere").split(b"\r\n")[1:-2]
    pairs = (line.split(b": ", 1) for line in lines)
    return {name.lower(): value for name, value in pairs}


# --- taking a head ---


def test_a_head_is_cut_off_and_what_follows_stays() -> None:
    inbox = bytearray(head() + b"the body")
    assert take_head(inbox, LONGEST) == head()
    assert inbox == b"the body"


def test_nothing_is_taken_before_the_head_is_complete() -> None:
    inbox = bytearray()
    for byte in head()[:-1]:
        inbox.append(byte)
        assert take_head(inbox, LONGEST) is None
    assert inbox == head()[:-1]


def test_blank_lines_before_a_request_are_passed_over() -> None:
    inbox = bytearray(b"\r\n\r\n" + head())
    assert take_head(inbox, LONGEST) == head()


def test_a_head_may_be_as_long_as_the_limit_and_not_a_byte_longer() -> None:
    exactly = head("X: " + "x" * (LONGEST - len(head("X: "))))
    assert len(exactly) == LONGEST
    assert take_head(bytearray(exactly), LONGEST) == exactly
    with pytest.raises(HeadTooLarge):
        take_head(bytearray(exactly), LONGEST - 1)


def test_a_bare_newline_is_refused_before_the_head_is_complete() -> None:
    with pytest.raises(MalformedRequest):
        take_head(bytearray(b"GET / HTTP/1.1\nHost: a\r\n"), LONGEST)


# --- parsing it ---


@pytest.mark.parametrize(
    ("version", "headers", "kept"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: keep-alive"], True),
        ("1.1", ["Connection: close"], False),
        ("1.1", ["Connection: Keep-Alive, CLOSE"], False),
        ("1.1", ["Connection: x", "Connection: close"], False),
        ("1.0", [], False),
        ("1.0", ["Connection: keep-alive"], False),
    ],
)
def test_only_http_1_1_keeps_its_connection_unless_told_otherwise(
    version: str, headers: list[str], kept: bool
) -> None:
    request = parse_head(head(*headers, line=f"GET / HTTP/{version}"))
    assert request.keep_alive is kept
    assert request.http_1_0 is (version == "1.0")


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "3.0"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(MalformedRequest, match=r"HTTP/1\.1"):
        parse_head(head(line=f"GET / HTTP/{version}"))


@pytest.mark.parametrize("control", [*range(9), 11, 12, 13, *range(14, 32), 127])
def test_no_control_character_passes_in_a_head(control: int) -> None:
    for spoiled in (
        head(f"X: a{chr(control)}b"),
        head(f"X{chr(control)}: a"),
        head(line=f"GET /{chr(control)} HTTP/1.1"),
    ):
        with pytest.raises(MalformedRequest):
            parse_head(spoiled)


def test_bytes_beyond_ascii_are_legal_in_a_value() -> None:
    assert parse_head(head("X: \xe9")).header(b"x") == b"\xe9"


def test_a_hundred_headers_are_read_and_one_more_is_not() -> None:
    parse_head(head(*["X: 1"] * 99))
    with pytest.raises(HeadTooLarge, match="100 headers"):
        parse_head(head(*["X: 1"] * 100))


@pytest.mark.parametrize("id", ["a", "0123-4567", "req_1.2:3@host/x+y=", "x" * 128])
def test_a_sane_request_id_is_kept(id: str) -> None:
    assert parse_head(head(f"X-Request-ID: {id}")).id == id.encode()


@pytest.mark.parametrize("id", ["", "two words", "x" * 129, "<script>", "\xe9"])
def test_another_one_is_replaced(id: str) -> None:
    assert re.fullmatch(rb"[0-9a-f]{16}", parse_head(head(f"X-Request-ID: {id}")).id)


def test_every_request_without_an_id_gets_one_of_its_own() -> None:
    assert len({parse_head(head()).id for _ in range(100)}) == 100


# --- the body's framing ---


def test_a_length_is_counted_and_none_at_all_is_zero() -> None:
    assert parse_head(head("Content-Length: 5")).framing.left == 5  # type: ignore[attr-defined]
    assert parse_head(head("Content-Length: 0")).framing.done
    assert parse_head(head()).framing.done


@pytest.mark.parametrize("coding", ["chunked", "Chunked", " \tchunked\t "])
def test_of_a_chunked_body_the_content_is_kept(coding: str) -> None:
    request = parse_head(head(f"Transfer-Encoding:{coding}"))
    assert isinstance(request.framing, Chunked)
    assert take_content(request.framing, bytearray(b"5\r\nhello\r\n0\r\n\r\n"), 99) == b"hello"
    assert request.framing.done


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        (["Content-Length: 5", CHUNKED], MalformedRequest),
        ([CHUNKED, "Content-Length: 5"], MalformedRequest),
        (["Content-Length: 5", "Content-Length: 5"], MalformedRequest),
        (["Content-Length: 5", "content-length: 6"], MalformedRequest),
        (["Content-Length: 5, 5"], MalformedRequest),
        (["Content-Length: +5"], MalformedRequest),
        (["Content-Length: -5"], MalformedRequest),
        (["Content-Length: 0x5"], MalformedRequest),
        (["Content-Length: 5_0"], MalformedRequest),
        (["Content-Length: 5 5"], MalformedRequest),
        (["Content-Length:"], MalformedRequest),
        (["Content-Length: " + "9" * 5000], MalformedRequest),
        ([CHUNKED, CHUNKED], NotImplementedByProxy),
        (["Transfer-Encoding: chunked, chunked"], NotImplementedByProxy),
        (["Transfer-Encoding: chunked, identity"], NotImplementedByProxy),
        (["Transfer-Encoding: gzip, chunked"], NotImplementedByProxy),
        (["Transfer-Encoding: xchunked"], NotImplementedByProxy),
        (["Transfer-Encoding: identity"], NotImplementedByProxy),
        (["Transfer-Encoding:"], NotImplementedByProxy),
        (['Transfer-Encoding: "chunked"'], NotImplementedByProxy),
        (["Transfer-Encoding : chunked"], MalformedRequest),
        (["Content-Length : 5"], MalformedRequest),
        ([" Content-Length: 5"], MalformedRequest),
        (["X: 1", "\tContent-Length: 5"], MalformedRequest),
    ],
)
def test_a_doubtful_framing_is_refused(headers: list[str], refusal: type[LlamasupError]) -> None:
    with pytest.raises(refusal):
        parse_head(head(*headers))


def test_http_1_0_has_no_chunks() -> None:
    with pytest.raises(MalformedRequest):
        parse_head(head(CHUNKED, line="POST / HTTP/1.0"))


# --- expectations ---


@pytest.mark.parametrize(
    ("line", "headers", "expected"),
    [
        ("POST / HTTP/1.1", ["Expect: 100-continue", "Content-Length: 5"], True),
        ("POST / HTTP/1.1", ["Expect: 100-Continue", CHUNKED], True),
        ("POST / HTTP/1.1", ["Expect: 100-continue", "Content-Length: 0"], False),
        ("GET / HTTP/1.1", ["Expect: 100-continue"], False),
        ("POST / HTTP/1.0", ["Expect: 100-continue", "Content-Length: 5"], False),
        ("POST / HTTP/1.1", ["Content-Length: 5"], False),
    ],
)
def test_a_client_that_waits_for_100_continue_is_recognised(
    line: str, headers: list[str], expected: bool
) -> None:
    assert parse_head(head(*headers, line=line)).expects_continue is expected


def test_another_expectation_fails() -> None:
    with pytest.raises(ExpectationFailed, match="100-continue"):
        parse_head(head("Expect: a-miracle"))


# --- forwarding ---


def test_what_speaks_to_the_next_hop_alone_is_not_forwarded() -> None:
    hop_by_hop = {
        "Connection": "close, X-Named, Keep-Alive",
        "Keep-Alive": "timeout=5",
        "Proxy-Authenticate": "Basic",
        "Proxy-Authorization": "secret",
        "Proxy-Connection": "keep-alive",
        "TE": "trailers",
        "Trailer": "X-Sum",
        "Upgrade": "websocket",
        "X-Named": "by Connection",
        "Expect": "100-continue",
        "X-Conversation-Id": "1",
    }
    request = parse_head(head("X-Kept: yes", *(f"{n}: {v}" for n, v in hop_by_hop.items())))
    assert forwarded(request) == {
        b"host": b"a",
        b"x-kept": b"yes",
        b"content-length": b"0",
        b"x-request-id": request.id,
        b"connection": b"close",
    }


def test_connection_cannot_name_what_we_write_ourselves_away() -> None:
    request = parse_head(head("Connection: content-length, host, x-request-id", "X-Request-ID: me"))
    assert {b"content-length", b"host", b"x-request-id"} <= forwarded(request).keys()


def test_a_chunked_body_is_forwarded_with_its_length() -> None:
    request = parse_head(head(CHUNKED))
    request.body = b"hello"
    headers = forwarded(request)
    assert headers[b"content-length"] == b"5"
    assert b"transfer-encoding" not in headers


def test_a_get_without_a_body_is_forwarded_without_a_length() -> None:
    assert b"content-length" not in forwarded(parse_head(head(line="GET / HTTP/1.1")))


def test_repeated_headers_are_forwarded_in_order() -> None:
    lines = parse_head(head("X: 1", "Y: 2", "X: 3")).forwarded(b"/")
    assert b"x: 1\r\ny: 2\r\nx: 3\r\n" in lines


def test_the_forwarded_request_line_has_the_target_that_was_chosen() -> None:
    assert parse_head(head()).forwarded(b"/x?y").startswith(b"POST /x?y HTTP/1.1\r\n")


# --- targets ---


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a?b=c", b"/a?b=c"),
        (b"//a", b"//a"),
        (b"http://host/a?b", b"/a?b"),
        (b"HTTPS://host:1/a", b"/a"),
        (b"http://host", b"/"),
    ],
)
def test_the_target_is_a_path_and_a_proxys_form_loses_its_host(target: bytes, path: bytes) -> None:
    assert origin_form(target) == path


@pytest.mark.parametrize("target", [b"*", b"host:443", b"host", b"ftp://host/a", b"://a", b"?a"])
def test_other_targets_are_refused(target: bytes) -> None:
    with pytest.raises(ClientError):
        origin_form(target)


def test_a_head_without_host_or_with_two_is_refused() -> None:
    for spoiled in (b"GET / HTTP/1.1\r\n\r\n", head("Host: b")):
        with pytest.raises(MalformedRequest):
            parse_head(spoiled)


def test_the_framing_of_a_request_without_a_body_takes_nothing() -> None:
    framing = parse_head(head(line="GET / HTTP/1.1")).framing
    assert isinstance(framing, Counted)
    assert framing.feed(b"the next request") == 0

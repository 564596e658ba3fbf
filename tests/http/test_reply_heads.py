"""An engine's reply head is read strictly, and rewritten for the client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.errors import EngineFailed
from llamasup.http.framing import Chunked, Counted, UntilClose
from llamasup.http.heads import refuse_ambiguity
from llamasup.http.reply_heads import (
    read_head,
    rewritten,
)
from llamasup.http.requests import Request


def asked(
    method: bytes = b"GET", *headers: tuple[bytes, bytes], keep_alive: bool = True
) -> Request:
    return Request(method, b"/", list(headers), keep_alive, http_1_0=False, id=b"the-id")


def replied(*headers: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *headers, b"", b""])


def lines(reply: bytes) -> list[bytes]:
    head, blank, _ = reply.partition(b"\r\n\r\n")
    assert blank
    return head.split(b"\r\n")


# --- a child's head ---


@pytest.mark.parametrize(
    ("headers", "framing"),
    [
        ([b"Content-Length: 5"], Counted),
        ([b"content-length:5 "], Counted),
        ([b"Transfer-Encoding: Chunked"], Chunked),
        ([], UntilClose),
    ],
)
def test_the_framing_of_a_reply_is_known(headers: list[bytes], framing: type) -> None:
    assert isinstance(read_head(replied(*headers)).framing(asked()), framing)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_replies_have_no_body_whatever_their_head_says(status: bytes) -> None:
    head = read_head(replied(b"Content-Length: 5", status=b"HTTP/1.1 " + status))
    assert head.framing(asked()).done


def test_the_answer_to_head_has_no_body() -> None:
    assert read_head(replied(b"Content-Length: 5")).framing(asked(b"HEAD")).done


@pytest.mark.parametrize(
    "head",
    [
        replied(status=b"SSH-2.0-OpenSSH"),
        replied(status=b"HTTP/2 200"),
        replied(status=b"HTTP/1.1 20"),
        replied(status=b"HTTP/1.1 2000 OK"),
        replied(status=b""),
        replied(b"no colon"),
        replied(b"Content-Length: many"),
        replied(b"Content-Length: -1"),
        replied(b"Content-Length: 5, 5"),
        replied(b"Content-Length: " + b"9" * 5000),
        replied(b"Content-Length: 5", b"content-length: 5"),
        replied(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        replied(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        replied(b"Transfer-Encoding: gzip, chunked"),
        replied(b"Transfer-Encoding:"),
        replied(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK"),
        replied(b": no name"),
        replied(b"X : 1"),
        replied(b"X\xe9: 1"),
        replied(b" X: 1"),
        replied(b"X: 1", b"\tY: 2"),
        replied(b"X: a\nb"),
        replied(b"X: a\rb"),
        *(replied(b"X: " + bytes([control])) for control in (0, 8, 11, 27, 127)),
        *(
            replied(status=b"HTTP/1.1 %b No" % status)
            for status in (b"099", b"000", b"600", b"999")
        ),
        replied(*[b"X: 1"] * 101),
    ],
)
def test_what_is_no_reply_or_two_is_an_error_of_the_engine(head: bytes) -> None:
    with pytest.raises(EngineFailed):
        read_head(head)


def test_a_status_without_a_reason_and_an_unknown_one_are_read() -> None:
    assert read_head(replied(status=b"HTTP/1.0 200")).status == 200
    assert read_head(replied(status=b"HTTP/1.1 299 Odd")).status == 299


# --- rewritten ---


def test_what_speaks_to_the_next_hop_alone_does_not_reach_the_client() -> None:
    head = read_head(
        replied(
            b"Connection: keep-alive, X-Named",
            b"Keep-Alive: timeout=5, max=100",
            b"X-Named: by Connection",
            b"Transfer-Encoding: chunked",
            b"Trailer: X-Sum",
            b"Upgrade: h2c",
            b"Proxy-Authenticate: Basic",
            b"Access-Control-Allow-Origin: http://the-engine",
            b"X-Request-ID: the-engines",
            b"Content-Type: text/plain",
            b"Set-Cookie: a=1",
            b"Set-Cookie: b=2",
        )
    )
    assert lines(rewritten(head, asked(), b"Transfer-Encoding: chunked", [b"Extra: 1"])) == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain",
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Transfer-Encoding: chunked",
        b"Extra: 1",
        b"X-Request-ID: the-id",
    ]


def test_a_connection_that_will_end_says_so() -> None:
    head = read_head(replied(b"Content-Length: 0"))
    assert b"Connection: close" in lines(rewritten(head, asked(keep_alive=False), None, []))
    assert b"Connection: close" not in lines(rewritten(head, asked(), None, []))


# --- errors ---


BYTES = st.sampled_from([*b"\x00\t\n\r !:aZ0-\x7f\x80\xff"]).map(lambda byte: bytes([byte]))


@given(st.lists(BYTES, max_size=12).map(b"".join), st.sampled_from(["name", "value", "status"]))
def test_nothing_is_read_that_two_servers_might_read_differently(part: bytes, where: str) -> None:
    spoiled = {
        "name": replied(part + b": 1"),
        "value": replied(b"X: " + part),
        "status": replied(status=b"HTTP/1.1 200" + part),
    }[where]
    try:
        read_head(spoiled)
    except EngineFailed:
        return
    refuse_ambiguity(spoiled)
    assert len(spoiled.split(b"\r\n")) in (3, 4)

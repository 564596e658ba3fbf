"""An answer opens once: with the engine's head, or early with ours, and then stays a stream."""

from __future__ import annotations

import json

import pytest

from llamasup.errors import ModelUnavailable, QueueTimeout
from llamasup.front.answer import Answer
from llamasup.http.framing import Chunked
from llamasup.http.reply_heads import ReplyHead, read_head
from llamasup.http.requests import Request

CORS = b"Access-Control-Allow-Origin: *"
STREAM = ReplyHead(200, [b"Content-Type: text/event-stream", b"Server: x"], None, True, True)


def asked(
    path: bytes = b"/v1/chat/completions", *, http_1_0: bool = False, keep_alive: bool = True
) -> Request:
    keep_alive = keep_alive and not http_1_0
    return Request(b"POST", path, [], keep_alive, http_1_0, b"the-id", b"{}")


def parted(answer: bytes) -> tuple[list[bytes], bytes]:
    """The lines of its head, and its body without chunks."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    assert blank
    lines = head.split(b"\r\n")
    return lines, unchunked(body) if b"Transfer-Encoding: chunked" in lines else body


def unchunked(body: bytes) -> bytes:
    payload = bytearray()
    assert Chunked(payload).feed(body) == len(body)
    return bytes(payload)


def test_an_answer_that_was_not_opened_has_the_engines_head() -> None:
    answer = Answer(asked(), [CORS])
    head = answer.head(STREAM, b"Transfer-Encoding: chunked")
    assert b"\r\nServer: x\r\n" in head
    assert CORS in head
    assert answer.suits(ReplyHead(404, [], 5, False))


def test_a_comment_may_name_a_model_whose_file_has_a_name_that_is_no_text() -> None:
    _, body = parted(Answer(asked(), []).comment("loading caf\udce9"))
    assert body == b": loading caf?\n\n"


def test_the_first_comment_opens_the_answer_and_no_other_head_follows() -> None:
    answer = Answer(asked(), [CORS])
    lines, body = parted(answer.comment("loading qwen3"))
    assert lines == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/event-stream",
        b"Transfer-Encoding: chunked",
        CORS,
        b"X-Request-ID: the-id",
    ]
    assert body == b": loading qwen3\n\n"
    assert unchunked(answer.comment("still loading")) == b": still loading\n\n"
    assert answer.head(STREAM, b"Transfer-Encoding: chunked") == b""


def test_a_connection_that_is_to_end_is_told_so_in_our_head_too() -> None:
    lines, _ = parted(Answer(asked(keep_alive=False), []).comment("x"))
    assert b"Connection: close" in lines


def test_http_1_0_gets_its_comments_raw_and_until_the_connection_ends() -> None:
    answer = Answer(asked(http_1_0=True), [])
    lines, body = parted(answer.comment("one"))
    assert lines[-1] == b"Connection: close"
    assert body == b": one\n\n"
    assert answer.comment("two") == b": two\n\n"
    assert answer.failure(QueueTimeout("it took too long")).startswith(b'data: {"error"')


@pytest.mark.parametrize("words", ["two\nlines", "two\r\n\r\nlines", "  two\rlines\n"])
def test_no_words_make_more_of_a_comment_than_one_line(words: str) -> None:
    assert parted(Answer(asked(), []).comment(words))[1] == b": two lines\n\n"


@pytest.mark.parametrize(
    ("head", "suits"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked", True),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8", True),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9", True),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2", False),
        (b"HTTP/1.1 500 No\r\nContent-Type: text/event-stream", False),
    ],
)
def test_after_a_comment_only_a_stream_will_do(head: bytes, suits: bool) -> None:
    answer = Answer(asked(), [])
    assert answer.suits(read_head(head + b"\r\n\r\n"))
    answer.comment("loading")
    assert answer.suits(read_head(head + b"\r\n\r\n")) == suits


def test_an_error_without_a_comment_before_it_is_a_reply_of_its_own() -> None:
    error = ModelUnavailable("it cannot be started")
    error.retry_after = 1.2
    lines, body = parted(Answer(asked(), [CORS]).failure(error))
    assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
    assert b"Retry-After: 2" in lines
    assert json.loads(body)["error"]["code"] == "model_unavailable"


@pytest.mark.parametrize(
    ("path", "event"),
    [
        (b"/v1/chat/completions?x=1", b'data: {"error": {'),
        (b"/prefixed/v1/completions", b'data: {"error": {'),
        (b"/v1/messages", b'event: error\ndata: {"type": "error", "error": {'),
        (b"/v1/responses", b'event: error\ndata: {"type": "error", "code": "queue_timeout"'),
        (b"/completion", b'data: {"error": {'),
    ],
)
def test_an_error_after_a_comment_is_the_last_event(path: bytes, event: bytes) -> None:
    answer = Answer(asked(path), [])
    answer.comment("waiting")
    end = answer.failure(QueueTimeout("it took too long"))
    assert end.endswith(b"\r\n0\r\n\r\n")
    assert unchunked(end).startswith(event)
    assert b"it took too long" in end

"""Replies of our own are complete, and say what is wrong."""

from __future__ import annotations

import json

from llamasup.errors import MethodNotAllowed, RouteNotFound
from llamasup.front.own_replies import error_reply, preflight_reply
from llamasup.http.requests import Request


def asked(
    method: bytes = b"GET", *headers: tuple[bytes, bytes], keep_alive: bool = True
) -> Request:
    return Request(method, b"/", list(headers), keep_alive, http_1_0=False, id=b"the-id")


def lines(reply: bytes) -> list[bytes]:
    head, blank, _ = reply.partition(b"\r\n\r\n")
    assert blank
    return head.split(b"\r\n")


def test_an_error_is_json_of_a_known_length() -> None:
    reply = error_reply(RouteNotFound("nothing here"), asked(), [b"Extra: 1"])
    head, _, body = reply.partition(b"\r\n\r\n")
    assert lines(reply)[0] == b"HTTP/1.1 404 Not Found"
    assert {
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"X-Request-ID: the-id",
        b"Extra: 1",
    } <= set(head.split(b"\r\n"))
    assert b"Connection: close" not in head
    assert json.loads(body)["error"] == {
        "message": "nothing here",
        "type": "invalid_request_error",
        "code": "not_found",
    }


def test_an_error_without_a_request_ends_the_connection() -> None:
    assert b"Connection: close" in lines(error_reply(RouteNotFound("x"), None, []))


def test_an_error_for_head_has_the_length_but_not_the_body() -> None:
    whole = error_reply(RouteNotFound("x"), asked(), [])
    head, blank, _ = whole.partition(b"\r\n\r\n")
    assert error_reply(RouteNotFound("x"), asked(b"HEAD"), []) == head + blank


def test_a_wrong_method_learns_the_right_ones() -> None:
    error = MethodNotAllowed("no", "GET, HEAD")
    assert b"Allow: GET, HEAD" in lines(error_reply(error, asked(), []))


# --- CORS ---


def test_a_preflight_is_allowed_the_headers_it_asks_for() -> None:
    request = asked(b"OPTIONS", (b"access-control-request-headers", b"x-mine"))
    reply = preflight_reply(request, [b"Access-Control-Allow-Origin: *"])
    assert lines(reply)[0] == b"HTTP/1.1 204 No Content"
    assert {
        b"Access-Control-Allow-Origin: *",
        b"Access-Control-Allow-Methods: GET, POST, OPTIONS",
        b"Access-Control-Allow-Headers: x-mine",
    } <= set(lines(reply))


def test_a_preflight_from_elsewhere_is_allowed_nothing() -> None:
    assert b"Access-Control" not in preflight_reply(asked(b"OPTIONS"), [])

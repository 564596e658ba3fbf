"""Replies of our own: errors, redirections, and answers to browsers' preflight requests. Pure."""

from __future__ import annotations

import json

from llamasup.apis.dialects import dialect_at
from llamasup.errors import LlamasupError, MethodNotAllowed, Unauthorized
from llamasup.http.reply_heads import status_line
from llamasup.http.requests import Request, request_id
from llamasup.http.retrying import advice


def error_reply(error: LlamasupError, request: Request | None, extra: list[bytes]) -> bytes:
    """A complete JSON reply for `error`. Without a request it says that the connection will
    close."""
    path = request.target.partition(b"?")[0] if request is not None else b""
    body = json.dumps(dialect_at(path).error_body(error)).encode()
    lines = [
        status_line(error.status),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *extra,
    ]
    id_ = request_id(None) if request is None else request.id
    lines += [b"%b: %b" % header for header in advice(error.retry_after, id_)]
    if isinstance(error, MethodNotAllowed):
        lines.append(b"Allow: " + error.allowed.encode())
    if isinstance(error, Unauthorized):
        lines.append(b"WWW-Authenticate: " + _challenge(request))
    lines.append(b"X-Request-ID: %b" % id_)
    if request is None or not request.keep_alive:
        lines.append(b"Connection: close")
    head = b"\r\n".join([*lines, b"\r\n"])
    return head if request is not None and request.method == b"HEAD" else head + body


def _challenge(request: Request | None) -> bytes:
    """How a key can be sent. A browser that shows a page asks its user for it; to the requests of
    scripts, a question that pops up would be no answer."""
    accepted = request.header(b"accept") if request is not None else None
    return b'Basic realm="llamasup"' if b"text/html" in (accepted or b"") else b"Bearer"


def redirection(request: Request, where: bytes, extra: list[bytes]) -> bytes:
    """A reply that sends the client to another path, with the same method and body."""
    lines = [status_line(308), b"Location: " + where, b"Content-Length: 0", *extra]
    return _without_body(request, lines)


def preflight_reply(request: Request, allowed: list[bytes]) -> bytes:
    """The answer to a browser that asks whether a page may send a request. It may if there are
    `allowed` lines."""
    lines = [status_line(204), *allowed]
    if allowed:
        wanted = request.header(b"access-control-request-headers") or b"*"
        lines += [
            b"Access-Control-Allow-Methods: GET, POST, OPTIONS",
            b"Access-Control-Allow-Headers: " + wanted,
            b"Access-Control-Max-Age: 86400",
        ]
    return _without_body(request, lines)


def _without_body(request: Request, lines: list[bytes]) -> bytes:
    last = [b"X-Request-ID: %b" % request.id]
    if not request.keep_alive:
        last.append(b"Connection: close")
    return b"\r\n".join([*lines, *last, b"\r\n"])

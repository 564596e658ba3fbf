"""Replies: a child's head read and rewritten for the client, and heads of our own."""

from __future__ import annotations

import json
import math
import re
from http import HTTPStatus

from attrs import define

from llamasup.errors import EngineFailed, LlamasupError, MethodNotAllowed
from llamasup.front.apologies import document
from llamasup.front.framing import Body, Chunked, Counted, UntilClose
from llamasup.front.heads import HOP_BY_HOP, BadHead, refuse_ambiguity
from llamasup.front.requests import Request

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: .*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
LONGEST_HEAD = 64 << 10

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}

_WRITTEN_ANEW = HOP_BY_HOP | {b"content-length", b"x-request-id"}
_CORS_PREFIX = b"access-control-"


@define(slots=True)
class ReplyHead:
    """What a child answered, before its body."""

    status: int
    lines: list[bytes]
    """The end-to-end header lines, ready to be sent on."""

    length: int | None
    chunked: bool
    is_event_stream: bool = False

    def framing(self, request: Request) -> Body:
        """How the body that follows is framed."""
        if request.method == b"HEAD" or self.status in (204, 304):
            return Counted(0)
        if self.chunked:
            return Chunked()
        return UntilClose() if self.length is None else Counted(self.length)


def read_head(head: bytes) -> ReplyHead:
    """A child's complete reply head, CORS headers removed: these are ours to give.

    Raises EngineFailed if it is none, or can be read in two ways: nothing of it could be passed
    on, and nothing that follows could be trusted.
    """
    try:
        refuse_ambiguity(head)
        return _read_head(head)
    except BadHead as error:
        raise EngineFailed(f"the engine's answer cannot be read: {error}") from None


def _read_head(head: bytes) -> ReplyHead:
    status_line, *lines = head[:-4].split(b"\r\n")
    status = _STATUS_LINE.fullmatch(status_line)
    if status is None:
        raise BadHead("this is not HTTP/1.1, or has a status that is none")
    kept: list[bytes] = []
    length: int | None = None
    coding: bytes | None = None
    is_event_stream = False
    options: list[bytes] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            raise BadHead("a header line has no proper name")
        name = name.lower()
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            coding = value.strip().lower() if coding is None else b"several"
        elif name == b"content-type":
            is_event_stream = value.strip().lower().startswith(b"text/event-stream")
            kept.append(line)
        elif name == b"connection":
            options += [option.strip().lower() for option in value.split(b",")]
        elif name not in _WRITTEN_ANEW and not name.startswith(_CORS_PREFIX):
            kept.append(line)
    _refuse_doubtful_framing(coding, length, http_1_0=status[1] == b"0")
    if options and options != [b"close"]:
        kept = [line for line in kept if line.partition(b":")[0].lower() not in options]
    return ReplyHead(int(status[2]), kept, length, coding is not None, is_event_stream)


def _refuse_doubtful_framing(coding: bytes | None, length: int | None, *, http_1_0: bool) -> None:
    if coding is None:
        return
    if coding != b"chunked":
        raise BadHead("its Transfer-Encoding is not spoken here, only chunked")
    if length is not None:
        raise BadHead("Content-Length and Transfer-Encoding exclude each other")
    if http_1_0:
        raise BadHead("HTTP/1.0 has no Transfer-Encoding")


def rewritten(
    head: ReplyHead, request: Request, framing_line: bytes | None, extra: list[bytes]
) -> bytes:
    """The head for the client."""
    lines = [b"HTTP/1.1 %d %b" % (head.status, _REASONS.get(head.status, b"")), *head.lines]
    if framing_line is not None:
        lines.append(framing_line)
    lines += extra
    lines.append(b"X-Request-ID: %b" % request.id)
    if not request.keep_alive:
        lines.append(b"Connection: close")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def error_reply(error: LlamasupError, request: Request | None, extra: list[bytes]) -> bytes:
    """A complete JSON reply for `error`; without a request, the connection is to be closed."""
    path = request.target.partition(b"?")[0] if request is not None else b""
    body = json.dumps(document(path, error)).encode()
    lines = [
        b"HTTP/1.1 %d %b" % (error.status, _REASONS.get(error.status, b"")),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *extra,
    ]
    if error.retry_after is not None:
        lines.append(b"Retry-After: %d" % math.ceil(error.retry_after))
    if isinstance(error, MethodNotAllowed):
        lines.append(b"Allow: " + error.allowed.encode())
    if request is not None:
        lines.append(b"X-Request-ID: %b" % request.id)
    if request is None or not request.keep_alive:
        lines.append(b"Connection: close")
    head = b"\r\n".join([*lines, b"\r\n"])
    return head if request is not None and request.method == b"HEAD" else head + body


def preflight_reply(request: Request, allowed: list[bytes]) -> bytes:
    """The answer to a browser that asks whether it may send a request; `allowed` if it may."""
    lines = [b"HTTP/1.1 204 No Content", *allowed]
    if allowed:
        wanted = request.header(b"access-control-request-headers") or b"*"
        lines += [
            b"Access-Control-Allow-Methods: GET, POST, OPTIONS",
            b"Access-Control-Allow-Headers: " + wanted,
            b"Access-Control-Max-Age: 86400",
        ]
    lines.append(b"X-Request-ID: %b" % request.id)
    if not request.keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"\r\n"])

"""The heads of replies: an engine's head is read, and rewritten for the client."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from attrs import define

from llamasup.errors import EngineFailed
from llamasup.http.framing import Body, Chunked, Counted, UntilClose
from llamasup.http.heads import HOP_BY_HOP, MOST_HEADERS, BadHead, refuse_ambiguity
from llamasup.http.requests import Request

LONGEST_HEAD: Final = 64 << 10

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = rb"[\t -~\x80-\xff]*+"
_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: %b)?\r\n((?:%b:%b\r\n){0,%d}+)\r\n"
    % (_VALUE, _NAME, _VALUE, MOST_HEADERS)
)
"""Measured: this takes a tenth of the time that all the checks of `heads` take."""

_HEADER: Final = re.compile(rb"((%b):(%b))\r\n" % (_NAME, _VALUE))
_LENGTH: Final = re.compile(rb"[ \t]*[0-9]{1,18}[ \t]*")

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}

_WRITTEN_ANEW = HOP_BY_HOP | {b"content-length", b"x-request-id"}
_OURS = (b"access-control-", b"x-llamasup-")
"""How the names of headers begin that we write ourselves."""


@define(slots=True)
class ReplyHead:
    """The head of a child's reply."""

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
    """Read a child's complete reply head. Headers that llamasup writes itself are removed.

    Raises EngineFailed if it is no head, or can be read in two ways: then neither the head nor what
    follows can be passed on.
    """
    try:
        return _read_head(head)
    except BadHead as error:
        raise EngineFailed(f"the engine's answer cannot be read: {error}; ask again") from None


def _read_head(head: bytes) -> ReplyHead:
    found = _HEAD.fullmatch(head)
    if found is None:
        refuse_ambiguity(head)
        raise BadHead("it is not HTTP/1.1, or its status or the name of a header is none")
    version, status, lines = found.groups()
    kept: list[bytes] = []
    length: int | None = None
    coding: bytes | None = None
    is_event_stream = False
    options: list[bytes] = []
    for line, name, value in _HEADER.findall(lines):
        name = name.lower()
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise BadHead("Content-Length is not one number, or not one that can be")
            length = int(value)
        elif name == b"transfer-encoding":
            coding = value.strip().lower() if coding is None else b"several"
        elif name == b"content-type":
            is_event_stream = value.strip().lower().startswith(b"text/event-stream")
            kept.append(line)
        elif name == b"connection":
            options += [option.strip().lower() for option in value.split(b",")]
        elif name not in _WRITTEN_ANEW and not name.startswith(_OURS):
            kept.append(line)
    _refuse_doubtful_framing(coding, length, http_1_0=version == b"0")
    if options and options != [b"close"]:
        kept = [line for line in kept if line.partition(b":")[0].lower() not in options]
    return ReplyHead(int(status), kept, length, coding is not None, is_event_stream)


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
    lines = [status_line(head.status), *head.lines]
    if framing_line is not None:
        lines.append(framing_line)
    lines += extra
    lines.append(b"X-Request-ID: %b" % request.id)
    if not request.keep_alive:
        lines.append(b"Connection: close")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def status_line(status: int) -> bytes:
    """The first line of a reply."""
    return b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b""))

"""Requests as clients send them: bytes become a `Request`, or an error that says what is wrong.

The head is read by `request_heads`. The end of the body is found by `framing`. The whole body is
kept (`front.bodies`): the model's name stands in it, and a request whose child dies is sent again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable
from typing import Final, Protocol

from attrs import define, field

from llamasup.errors import (
    ClientError,
    ExpectationFailed,
    HeadTooLarge,
    MalformedRequest,
)
from llamasup.http.framing import Body, Chunked, Counted
from llamasup.http.heads import (
    END_OF_HEAD,
    HOP_BY_HOP,
    BadHead,
    refuse_bare_newlines,
)
from llamasup.http.request_heads import Headers, read_head

_LEADING_BLANK_LINES = re.compile(rb"(?:\r\n){1,8}")
_SANE_HOST = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]{0,255}|\[[A-Za-z0-9:.%_~-]{2,100}\])(?::[0-9]{0,5})?"
)
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")

EXPECTS: Final = b"x-llamasup-expects"
"""Tells a llamasup where the one in front of it believes the model to be: `loaded` or `fits`."""

ON_BEHALF: Final = b"x-llamasup-for"
"""Tells clients of one llamasup apart to the next one. It is worth no more than an invented key."""

CLIENT: Final = b"x-llamasup-client"
"""Tells control a client's address. Only the front sends it, and only to control."""

KEY: Final = b"x-llamasup-key"
"""Tells control the name of the key that a request came with, in the same way."""

_WRITTEN_ANEW: Final = HOP_BY_HOP | {
    b"content-length",
    b"expect",
    b"host",
    b"x-request-id",
    # llama-server would keep a stream alive for a client that has left.
    b"x-conversation-id",
}


_NO_BODY: Final = Counted(0)
"""It never changes, so one serves all."""


class Stored(Protocol):
    """A large body, which is not kept in memory."""

    def __len__(self) -> int:
        """Its size in bytes."""

    async def read(self, at: int) -> bytes:
        """The next bytes from there. They can be read more than once, also after a cancellation.

        Raises a LlamasupError if they cannot be read.
        """


@define(slots=True)
class Request:
    """One request, read whole."""

    method: bytes
    target: bytes
    headers: Headers
    """Names in lower case, in order. They never change; for others, a new Request is made."""

    keep_alive: bool
    http_1_0: bool
    id: bytes
    body: bytes | bytearray | Stored = b""
    expects_continue: bool = False
    framing: Body = _NO_BODY
    secrets: frozenset[bytes] = frozenset()
    """Names of headers that hold a key of llamasup's own: they are never forwarded."""

    _first: dict[bytes, bytes] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self._first = dict(reversed(self.headers))

    @property
    def connection_options(self) -> set[bytes]:
        """The names in the `Connection` headers, in lower case."""
        return _connection_options(self.headers) if b"connection" in self._first else set()

    def header(self, name: bytes) -> bytes | None:
        """The first header of this name (in lower case)."""
        return self._first.get(name)

    def forwarded(
        self,
        target: bytes,
        withheld: Collection[bytes] = (),
        host: bytes = b"",
        added: Iterable[tuple[bytes, bytes]] = (),
    ) -> bytes:
        """The head for an upstream, without hop-by-hop headers, our own keys and `withheld`, but
        with those that are `added`. Without a `host`, it names the client's."""
        named = self.connection_options.union(withheld, self.secrets)
        host = host or self.header(b"host") or b"llamasup"
        lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (self.method, target, host)]
        lines += [
            b"%b: %b" % (name, value)
            for name, value in self.headers
            if name not in _WRITTEN_ANEW and name not in named
        ]
        lines += [b"%b: %b" % header for header in added]
        if self.body or self.method in (b"POST", b"PUT", b"PATCH"):
            lines.append(b"Content-Length: %d" % len(self.body))
        lines.append(b"X-Request-ID: %b\r\nConnection: close\r\n\r\n" % self.id)
        return b"\r\n".join(lines)


def _connection_options(headers: Headers) -> set[bytes]:
    options: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            options.update(option.strip().lower() for option in value.split(b","))
    return options


def take_head(inbox: bytearray, longest: int) -> bytes | None:
    """Take a complete head off the front of `inbox`. None while more has to come.

    Raises HeadTooLarge, and MalformedRequest for bytes that can never become a head.
    """
    if not inbox:
        return None
    if inbox.startswith(b"\r\n") and (blank := _LEADING_BLANK_LINES.match(inbox)):
        del inbox[: blank.end()]
    end = inbox.find(END_OF_HEAD, 0, longest)
    if end >= 0:
        head = bytes(inbox[: end + len(END_OF_HEAD)])
        del inbox[: len(head)]
        return head
    if len(inbox) >= longest:
        raise HeadTooLarge(f"request line and headers are over {longest} bytes: send fewer headers")
    try:
        refuse_bare_newlines(inbox)
    except BadHead as error:
        raise MalformedRequest(str(error)) from None
    return None


def parse_head(head: bytes) -> Request:
    """Make a `Request` of a complete head; its body has still to be read.

    Raises a ClientError that closes the connection: after a head that is not understood, nothing
    tells where the next request begins.
    """
    method, target, headers, http_1_0 = read_head(head)
    request = Request(
        method=method,
        target=target,
        headers=headers,
        # What follows a CONNECT is meant for another server.
        keep_alive=not http_1_0 and method != b"CONNECT",
        http_1_0=http_1_0,
        id=b"",
    )
    if b"close" in request.connection_options:
        request.keep_alive = False
    if not _SANE_HOST.fullmatch(request.header(b"host") or b""):
        raise MalformedRequest("Host is not the name or the address of a host")
    request.id = request_id(request.header(b"x-request-id"))
    request.framing = body_framing(request)
    request.expects_continue = expects_continue(request)
    return request


def body_framing(request: Request) -> Body:
    """How the body of a request is framed. Raises MalformedRequest if that is ambiguous."""
    length = request.header(b"content-length")
    if request.header(b"transfer-encoding") is None:
        return Counted(int(length or 0))
    if length is not None:
        raise MalformedRequest("Content-Length and Transfer-Encoding exclude each other")
    if request.http_1_0:
        raise MalformedRequest("HTTP/1.0 has no Transfer-Encoding")
    return Chunked(bytearray())


def expects_continue(request: Request) -> bool:
    """Does the client wait for `100 Continue`? Raises ExpectationFailed if it expects other
    things."""
    expectation = request.header(b"expect")
    if expectation is None or request.http_1_0:
        return False
    if expectation.lower() != b"100-continue":
        raise ExpectationFailed('the only expectation that can be met is "100-continue"')
    return not request.framing.done


def request_id(given: bytes | None) -> bytes:
    """The client's own id if it is acceptable, else a new one."""
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given
    return b"%016x" % random.getrandbits(64)


def origin_form(target: bytes) -> bytes:
    """The target as a path with its query; a proxy-style `http://host/path` loses its host."""
    if target.startswith(b"/"):
        return target
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        _, slash, path = rest.partition(b"/")
        return slash + path if slash else b"/"
    raise ClientError("the request's target must be a path")

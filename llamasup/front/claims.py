"""Who asks, and how urgently: by what a queue tells its waiters apart.

The urgency is that of the standard header `Priority: u=N` (RFC 9218), 0 for the most urgent to 7.
The header is a dictionary of structured fields (RFC 8941), and one that is malformed counts as
none, whatever can still be read of it.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from llamasup.front.requests import Request

_URGENCIES: Final = range(8)
_USUAL_URGENCY: Final = 3

_BEARER = re.compile(rb"bearer +(.+)", re.IGNORECASE)


def key(request: Request, peer: str) -> str:
    """What all requests of one client have in common: its API key, or else where it is.

    Of the API key only a digest, so that it can be written to a log.
    """
    secret = request.header(b"x-api-key")
    if bearer := _BEARER.fullmatch(request.header(b"authorization") or b""):
        secret = bearer[1]
    return f"key {sha256(secret).hexdigest()[:16]}" if secret else peer


def priority(request: Request) -> int:
    """A number that is higher the more urgent the request is, and usually 0."""
    if request.header(b"priority") is None:
        return 0
    lines = [value for name, value in request.headers if name == b"priority"]
    return _USUAL_URGENCY - urgency(b", ".join(lines))


def urgency(dictionary: bytes) -> int:
    """What a `Priority` header says: 0 is first, 7 is last; the usual 3 if it does not say."""
    found = _USUAL_URGENCY
    at = 0
    while member := _MEMBER.match(dictionary, at):
        if member["key"] == b"u":
            found = _within_bounds(member["item"])
        at = member.end()
        if at == len(dictionary):
            return found
        if not (comma := _COMMA.match(dictionary, at)):
            break
        at = comma.end()
    return _USUAL_URGENCY


def _within_bounds(item: bytes | None) -> int:
    if item and item.isdigit() and int(item) in _URGENCIES:
        return int(item)
    return _USUAL_URGENCY


_COMMA = re.compile(rb"[ \t]*,[ \t]*")
_KEY = rb"[a-z*][a-z0-9_.*-]*+"
_BARE = rb"""(?:
    -?\d{1,12}\.\d{1,3}(?!\d) | -?\d{1,15}(?![\d.])         # a decimal, an integer
    | "(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"          # a string
    | [A-Za-z*][!\#$%&'*+.^_`|~0-9A-Za-z:/-]*+              # a token
    | :[A-Za-z0-9+/=]*+:                                    # bytes
    | \?[01]                                                # a boolean
)"""
_PARAMETERS = rb"(?:;[ ]*+%b(?:=%b)?)*+" % (_KEY, _BARE)
_ITEM = _BARE + _PARAMETERS
_INNER_LIST = rb"\([ ]*+(?:%b(?:[ ]++%b)*+)?[ ]*+\)%b" % (_ITEM, _ITEM, _PARAMETERS)
_MEMBER = re.compile(
    rb"(?P<key>%b)(?:=(?:%b|(?P<item>%b)%b)|%b)"
    % (_KEY, _INNER_LIST, _BARE, _PARAMETERS, _PARAMETERS),
    re.VERBOSE,
)

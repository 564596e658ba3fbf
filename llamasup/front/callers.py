"""Which client a request comes from, and how urgent it is: queues give turns accordingly.

The urgency is that of the standard header `Priority: u=N` (RFC 9218), from 0, the most urgent, to
7. The header is a dictionary of structured fields (RFC 8941). A malformed header counts as none,
even if a part of it could be read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from llamasup.http.requests import ON_BEHALF, Request
from llamasup.pool.queue import Client

_URGENCIES: Final = range(8)
_USUAL_URGENCY: Final = 3

_LONGEST: Final = 128
"""Bytes. A longer `Priority` is an attempt to keep us busy, and is not read."""

_OF_ONE_HOUSEHOLD: Final = 64

_DIGEST = re.compile(rb"[0-9a-f]{16}")
_BEARER = re.compile(rb"bearer +(.+)", re.IGNORECASE)


def client(request: Request, peer: str, key: str = "") -> Client:
    """What all requests of one client have in common: the place that they come from, and the API
    key.

    A valid `key`, by its name, is a place of its own, and the addresses that it is used from take
    turns there. Otherwise a key only tells apart clients that come from one address: anybody can
    invent one. Only a digest of it is kept, which may be written to a log.
    """
    behind = _behind(request)
    if key:
        return Client(payer(peer, key), place(peer) + behind)
    secret = request.header(b"x-api-key")
    if bearer := _BEARER.fullmatch(request.header(b"authorization") or b""):
        secret = bearer[1]
    key = f"key {sha256(secret).hexdigest()[:16]}" if secret else ""
    return Client(place(peer), key + behind)


def _behind(request: Request) -> str:
    """Which client of a llamasup in front this is; "" if there is none. It only tells apart what
    comes from one place."""
    behind = request.header(ON_BEHALF)
    if behind is None or not _DIGEST.fullmatch(behind):
        return ""
    return f" for {behind.decode()}"


def payer(peer: str, key: str) -> str:
    """For whom counts what a request takes: its valid key, by its name, or else its place."""
    return f"key {key}" if key else place(peer)


@lru_cache(maxsize=4096)  # each body asks, and an IPv6 address takes 20 µs
def place(peer: str) -> str:
    """The name of all addresses that one client may have: the IPv4 address, or the IPv6 network.

    Each household has 2^64 or more IPv6 addresses, and a client may use another one each time.
    """
    if ":" not in peer:
        return peer
    address = IPv6Address(peer.partition("%")[0])
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return peer
    return str(IPv6Network((address, _OF_ONE_HOUSEHOLD), strict=False))


def priority(request: Request, of_key: int | None = None) -> int:
    """The request's priority: 0 is usual, and a higher number is more urgent.

    If its key has a priority, the request itself can only lower that.
    """
    if request.header(b"priority") is None:
        return of_key or 0
    lines = [value for name, value in request.headers if name == b"priority"]
    if sum(map(len, lines)) + len(lines) > _LONGEST:
        return of_key or 0
    asked = _USUAL_URGENCY - urgency(b", ".join(lines))
    return asked if of_key is None else min(asked, of_key)


def urgency(dictionary: bytes) -> int:
    """The urgency in a `Priority` header, from 0 (first) to 7 (last); 3 if it says none."""
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

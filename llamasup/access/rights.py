"""What a request needs to be let in: nothing, a key, or an operator's key. Pure.

Where there are no keys, everybody may ask models and look; but what changes something for others
is for this machine alone. A page of llamasup's own that is not listed here is for operators.
"""

from __future__ import annotations

import re
from enum import Enum
from ipaddress import ip_address
from typing import Final


class Need(Enum):
    """What a request needs where there are keys."""

    NOTHING = "nothing"
    """It tells whether llamasup lives, or how to ask it: supervisors and load balancers have no
    key."""

    KEY = "key"
    OPERATOR = "operator"
    """It shows or changes something of others."""


_FOR_ALL: Final = frozenset(
    {b"/", b"/health", b"/v1/health", b"/livez", b"/readyz", b"/openapi.json"}
)
_FOR_CLIENTS: Final = re.compile(
    rb"(?:/v1)?/models(?!/(?:load|unload)$)(?:/.*)?"
    rb"|/api/(?:version|tags|show|ps)"
    rb"|/api/(?:pull|push|create|copy|delete)"  # these only say what to do instead
)
_OF_ENGINES_FOR_OPERATORS: Final = re.compile(
    rb"POST .*/(?:props|lora-adapters|slots/[^/]+)/*|(?:GET|HEAD) .*/(?:slots|metrics)/*", re.DOTALL
)
"""Slots show what others ask, and the rest acts on all that the engine does. A path may begin
with a prefix that the engine has, or with a model's name."""


def need_of_page(path: bytes) -> Need:
    """What a page of llamasup's own needs."""
    if path in _FOR_ALL:
        return Need.NOTHING
    return Need.KEY if _FOR_CLIENTS.fullmatch(path) else Need.OPERATOR


def need_of_engine(method: bytes, path: bytes) -> Need:
    """What a request to an engine needs; the path is the engine's, which reads `%73lots`, too."""
    meant = _ENCODED.sub(_decoded, path) if b"%" in path else path
    found = _OF_ENGINES_FOR_OPERATORS.fullmatch(b"%b %b" % (method, meant))
    return Need.OPERATOR if found else Need.KEY


_ENCODED: Final = re.compile(rb"%(?:u([0-9a-fA-F]{4})|([0-9a-fA-F]{2}))")
"""llama-server reads `%u0073lots`, too, although no standard knows that."""


def _decoded(found: re.Match[bytes]) -> bytes:
    return chr(int(found[1] or found[2], 16)).encode("utf-8", "replace")


def is_from_here(peer: str) -> bool:
    """Does a client with this address run on this machine? (`unix` is a Unix socket.)"""
    if peer in ("unix", "127.0.0.1", "::1"):
        return True
    address = ip_address(peer.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback

"""Who may do what an operator does: nobody's web page, and whoever has the key. Pure."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence

from llamasup.config.addresses import TcpAddress, parse_address
from llamasup.errors import Forbidden, Unauthorized

Headers = Iterable[tuple[bytes, bytes]]

_BEARER = re.compile(rb"bearer +(\S+) *", re.IGNORECASE)
_HOST = re.compile(r"(?:\[(?P<ipv6>[^]]+)\]|(?P<name>[^:]*))(?::[0-9]*)?")


def header(headers: Headers, wanted: bytes) -> bytes:
    """The first header of this name (in lower case), empty if there is none."""
    return next((value for name, value in headers if name == wanted), b"")


def refuse_web_pages(headers: Headers) -> None:
    """Raise Forbidden for a browser: a page in it may have been made by anybody."""
    if any(name == b"origin" for name, _ in headers):
        raise Forbidden("this is not for web pages")


def refuse_foreign_hosts(headers: Headers, listen: Sequence[str]) -> None:
    """Raise Forbidden for a host that is not ours, by its name.

    Whoever owns a name may let it point here, and so have browsers take us for a part of it. With
    an address, or with a name that the operator listens on, nobody can.
    """
    host = header(headers, b"host").decode("latin-1")
    addresses = map(parse_address, listen)
    ours = {address.host for address in addresses if isinstance(address, TcpAddress)} - {""}
    matched = _HOST.fullmatch(host)
    name = (matched["ipv6"] or matched["name"] or "") if matched else ""
    known = {"localhost", *(own.casefold() for own in ours)}
    if not _is_address(name) and name.casefold() not in known:
        raise Forbidden(f'"{host}" is no name of this host: ask for it by its address')


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def demand_key(headers: Headers, admin_key: str) -> None:
    """Raise Unauthorized for whoever has not got the key, where there is one."""
    if not admin_key:
        return
    bearer = _BEARER.fullmatch(header(headers, b"authorization"))
    if bearer is None or not hmac.compare_digest(bearer[1], admin_key.encode()):
        raise Unauthorized('this takes the admin key: "Authorization: Bearer KEY"')

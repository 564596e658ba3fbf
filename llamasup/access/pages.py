"""Which web pages may use this llamasup, and by which names its operators know it. Pure.

A browser lets any page send a request anywhere, and only hides the answer from it. And if the owner
of a domain name lets it point to this machine, the browser takes llamasup for a part of that
owner's site. So a page's request is judged by its `Origin` before anything is done for it, and a
request to the operator's paths by its `Host`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

from llamasup.access.admin_key import is_operator
from llamasup.access.headers import Headers, header
from llamasup.config.addresses import TcpAddress, parse_address
from llamasup.config.schema import Server
from llamasup.errors import Forbidden

ALL: Final = "*"
LOCAL: Final = "local"
"""In `server.cors_origins`, this means pages that this machine serves, and apps."""

_LOCAL: Final = re.compile(
    r"https?://(?:(?:[a-z0-9-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|0\.0\.0\.0|\[::1\])(?::[0-9]+)?"
    # Schemes that no web page can have.
    r"|(?:app|capacitor|electron|ionic|tauri|vscode-file|vscode-webview|wails)://[^/\s]*",
    re.IGNORECASE,
)
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[^]]+)\]|(?P<name>[^:]*))(?::[0-9]*)?")


def refuse_foreign_pages(headers: Headers, server: Server) -> None:
    """Raise Forbidden for a page that may not use this llamasup.

    A request with the operator's key does not come from such a page: a page cannot make a browser
    add the key.
    """
    for origin in (value.decode("latin-1") for name, value in headers if name == b"origin"):
        if not may_use(origin, header(headers, b"host"), server) and not is_operator(
            headers, server.admin_key
        ):
            raise Forbidden(
                f'pages of "{origin[:200]}" may not use this llamasup; its operator can list'
                " them in server.cors_origins"
            )


def may_use(origin: str, host: bytes, server: Server) -> bool:
    """May a page of this origin use this llamasup, if its request has this `Host`?"""
    listed = server.cors_origins
    if ALL in listed or origin.casefold() in map(str.casefold, listed):
        return True
    return (LOCAL in listed and bool(_LOCAL.fullmatch(origin))) or _is_our_own(origin, host, server)


def lines_for_page(headers: Headers, server: Server) -> list[bytes]:
    """The same headers as `cors_lines`, if a page asks and may: it should be able to read what was
    wrong with its request, too."""
    origin = header(headers, b"origin")
    if origin and may_use(origin.decode("latin-1"), header(headers, b"host"), server):
        return cors_lines(server.cors_origins, origin)
    return []


def cors_lines(origins: Sequence[str], origin: bytes) -> list[bytes]:
    """The headers that tell a browser to let the page read the reply."""
    if ALL in origins:
        return [b"Access-Control-Allow-Origin: *", _EXPOSED]
    return [b"Access-Control-Allow-Origin: " + origin, b"Vary: Origin", _EXPOSED]


_EXPOSED: Final = b"Access-Control-Expose-Headers: *"
"""All of them: requests whose answers have these lines are sent without cookies, so nothing in the
headers is secret."""


def _is_our_own(origin: str, host: bytes, server: Server) -> bool:
    """Was the page served from here, or by a proxy in front of llamasup?"""
    _, separator, authority = origin.partition("://")
    host_is_ours = is_ours(host, server)
    return host_is_ours and bool(separator) and authority.encode().lower() == host.lower()


def refuse_web_pages(headers: Headers) -> None:
    """Raise Forbidden for a request of a web page, wherever the page comes from."""
    if any(name == b"origin" for name, _ in headers):
        raise Forbidden("this is not for web pages")


def refuse_foreign_hosts(headers: Headers, server: Server) -> None:
    """Raise Forbidden if the request's `Host` is not known to be ours."""
    host = header(headers, b"host")
    if not is_ours(host, server):
        raise Forbidden(
            f'"{host.decode("latin-1")[:200]}" is no name of this host: ask for it by its address,'
            " or add the name to server.hosts"
        )


def is_ours(host: bytes, server: Server) -> bool:
    """Is it certain that this `Host` does not belong to another site?

    Anyone can let a domain name point to this machine, so names are not ours by themselves.
    Addresses are, and so are names that the operator listens on or lists in `server.hosts`.
    """
    matched = _HOST.fullmatch(host.decode("latin-1"))
    name = (matched["ipv6"] or matched["name"] or "") if matched else ""
    return _is_address(name) or name.casefold() in {
        "localhost",
        *(own.casefold() for own in (*server.hosts, *_listened_on(server.listen)) if own),
    }


def _listened_on(listen: Iterable[str]) -> list[str]:
    addresses = map(parse_address, listen)
    return [address.host for address in addresses if isinstance(address, TcpAddress)]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

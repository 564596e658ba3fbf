"""Where llamasup listens, as one value: `host:port`, `[::1]:8080`, `:8080`, each of them also after
`https://`, or `unix:/path`."""

from __future__ import annotations

import ipaddress
import re

from attrs import evolve, frozen

from llamasup.config.problems import Unfit

_HOST_AND_PORT = re.compile(
    r"(?: \[ (?P<ipv6>[^\[\]]+) \] | (?P<host>[A-Za-z0-9._-]*) ) : (?P<port>[0-9]{1,5})",
    re.VERBOSE,
)

_FORMS = (
    'write one such as "127.0.0.1:8080", "[::1]:8080", ":8080", "https://:8443"'
    ' or "unix:/run/llamasup.sock"'
)
_SECURE = "https://"

_LONGEST_SOCKET_PATH = 107
"""Bytes. The kernel has room for 108, of which the last one is a zero."""


@frozen
class TcpAddress:
    """A port on one interface; an empty host means all of them."""

    host: str
    port: int
    secure: bool = False
    """Is TLS spoken there?"""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_SECURE if self.secure else ''}{host}:{self.port}"


@frozen
class UnixAddress:
    """A Unix socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """The address that `text` names. Raises `Unfit` (a ValueError), which says how to write one."""
    kind, _, path = text.partition(":")
    if kind == "unix":
        return _unix_address(path)
    secure = text.startswith(_SECURE)
    host_and_port = text.removeprefix(_SECURE)
    if "://" in host_and_port or (secure and "/" in host_and_port):
        raise Unfit(f'"{text}" is a URL, not an address', _FORMS)
    matched = _HOST_AND_PORT.fullmatch(host_and_port)
    if matched is None:
        raise Unfit(f'"{text}" is not an address', _FORMS)
    port = int(matched["port"])
    if port > 65535:
        raise Unfit(f'"{text}" has a port above 65535', _FORMS)
    if matched["ipv6"] is not None:
        return TcpAddress(_ip_address(matched["ipv6"], ipaddress.IPv6Address), port, secure)
    host = matched["host"]
    if re.fullmatch(r"[0-9.]+", host):
        host = _ip_address(host, ipaddress.IPv4Address)
    return TcpAddress(host, port, secure)


def url_of(address: Address) -> str:
    """The address as clients write it: with the scheme that is spoken there."""
    is_plain = isinstance(address, TcpAddress) and not address.secure
    return f"{'http://' if is_plain else ''}{address}"


def from_here(address: Address) -> Address:
    """The address by which clients on this machine reach a server that listens there.

    Where it listens on all interfaces, that is the loopback interface.
    """
    if isinstance(address, UnixAddress):
        return address
    loopback = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
    return evolve(address, host=loopback.get(address.host, address.host))


def _unix_address(path: str) -> UnixAddress:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise Unfit(f'"{path}" is not the full path of a socket', 'write "unix:/path/x.sock"')
    if len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise Unfit(
            f"the socket's path is longer than {_LONGEST_SOCKET_PATH} bytes",
            "choose a shorter folder",
        )
    return UnixAddress(path)


def _ip_address(
    host: str, family: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]
) -> str:
    try:
        family(host)
    except ValueError:
        raise Unfit(f'"{host}" is not an IP address', _FORMS) from None
    return host

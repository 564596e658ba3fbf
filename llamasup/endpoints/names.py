"""The addresses behind an endpoint's URL, and how long that answer may be used.

Names are looked up as the machine does it (`/etc/hosts`, then DNS): that is one instance, however
many addresses it has. Of a `dns+` URL every address is an instance, so DNS itself is asked: only
it says how long its answer counts. The library for that is imported only if there is such a URL.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final

import trio
from attrs import frozen

from llamasup.config.addresses import Address, TcpAddress
from llamasup.config.urls import Url
from llamasup.shortages import no_thread_as_shortage

_PATIENCE: Final = 5.0
LONGEST: Final = 30.0
"""Seconds after which a name is looked up again in any case. Some servers of container networks
give addresses that come and go a lifetime of a day."""

_SHORTEST: Final = 1.0
_GRACE: Final = 0.5
"""Seconds for which the second answer of two is waited for."""

_KINDS: Final = ("A", "AAAA")

MOST: Final = 256
"""Instances of one name: each is asked how it is, twice a second while it is away."""

Instances = Sequence[tuple[Address, ...]]
"""The addresses of each instance."""


@frozen
class Found:
    """What a name means now, and for how many seconds."""

    instances: Instances
    lifetime: float


async def look_up(url: Url) -> Found:
    """What the URL means now. Raises OSError, which says why that cannot be known.

    When this is cancelled, a thread may be left behind that ends by itself.
    """
    if url.socket is not None:
        return Found([(url.socket,)], LONGEST)
    with trio.move_on_after(_PATIENCE):
        if not url.each:
            assert url.port is not None  # `parse_url` sees to that
            return Found([await _as_the_machine_does(url.host, url.port)], LONGEST)
        return await (_of_services(url.host) if url.port is None else _of_hosts(url.host, url.port))
    raise TimeoutError(None, f"the name {url.host} could not be looked up in time")


async def _as_the_machine_does(host: str, port: int) -> tuple[Address, ...]:
    with no_thread_as_shortage():
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(TcpAddress(str(where[0]), port) for *_, where in found))


async def _of_hosts(name: str, port: int) -> Found:
    """Every IPv4 and IPv6 address that the name has."""
    answers = await _addresses(name)
    if not answers:
        raise OSError(None, f"DNS knows no address of {name}")
    found = [TcpAddress(record.address, port) for answer in answers for record in answer]
    return Found(_each(found), _lifetime(answers))


async def _of_services(name: str) -> Found:
    """Every host and port that the name's SRV records tell; the most preferred come first."""
    answer = await _ask(name, "SRV")
    if not answer:
        raise OSError(None, f"DNS knows no SRV record of {name}; a URL with a port needs none")
    found: list[Address] = []
    for record in sorted(answer, key=lambda record: record.priority)[:MOST]:
        for addresses in await _addresses(str(record.target).rstrip(".")):
            found += [TcpAddress(entry.address, record.port) for entry in addresses]
    if not found:
        raise OSError(None, f"DNS knows no address of the hosts that {name} names")
    return Found(_each(found), _lifetime([answer]))


async def _addresses(name: str) -> list[Any]:
    """DNS's answers about the name's IPv4 and IPv6 addresses. Raises OSError.

    Some servers never answer for IPv6: what came of one kind counts without the other.
    """
    answers: list[Any] = []
    failures: list[OSError] = []

    async def ask(kind: str) -> None:
        try:
            if answer := await _ask(name, kind):
                answers.append(answer)
                nursery.cancel_scope.deadline = trio.current_time() + _GRACE
        except OSError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for kind in _KINDS:
            nursery.start_soon(ask, kind)
    if failures and not answers:
        raise failures[0]
    return sorted(answers, key=lambda answer: _KINDS.index(answer.rdtype.name))


def _each(found: Iterable[Address]) -> list[tuple[Address, ...]]:
    return [(address,) for address in list(dict.fromkeys(found))[:MOST]]


def _lifetime(answers: Iterable[Any]) -> float:
    shortest: float = min(answer.rrset.ttl for answer in answers)
    return min(LONGEST, max(_SHORTEST, shortest))


async def _ask(name: str, kind: str) -> Any:
    """The answer of DNS; None if the name has no such record. Raises OSError."""
    import dns.asyncresolver
    import dns.exception
    import dns.resolver

    try:
        return await dns.asyncresolver.resolve(name, kind, search=True)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return None
    except dns.exception.DNSException as error:
        raise OSError(None, f"DNS does not answer for {name}: {error}") from error

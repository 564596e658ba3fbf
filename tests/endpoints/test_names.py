"""Names: the machine's own way for one instance, DNS for each address of a name."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import dns.asyncresolver
import pytest
import trio

from llamasup.config.addresses import TcpAddress, UnixAddress
from llamasup.config.urls import parse_url
from llamasup.endpoints import names

Records = Mapping[tuple[str, str], list[bytes]]
_KINDS = {1: "A", 28: "AAAA", 33: "SRV"}


def labels(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def srv(priority: int, port: int, target: str) -> bytes:
    return struct.pack(">HHH", priority, 0, port) + labels(target)


@asynccontextmanager
async def dns_with(
    records: Records, monkeypatch: pytest.MonkeyPatch, ttl: int = 5, fails: str = ""
) -> AsyncIterator[list[str]]:
    """A DNS server with these records, which is asked from now on; what it was asked. It does not
    answer for records of the kind that `fails`."""
    asked: list[str] = []

    def answer(query: bytes) -> bytes:
        question = query[12:]
        parts, at = [], 0
        while length := question[at]:
            parts.append(question[at + 1 : at + 1 + length].decode())
            at += 1 + length
        kind = int.from_bytes(question[at + 1 : at + 3], "big")
        name = ".".join(parts).lower()
        asked.append(f"{name} {_KINDS.get(kind)}")
        found = records.get((name, _KINDS.get(kind, "")), [])
        known = any(known == name for known, _ in records)
        flags = 0x8180 if known else 0x8183
        entries = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data for data in found
        )
        head = query[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0)
        return head + question[: at + 5] + entries

    async def serve(sock: trio.socket.SocketType) -> None:
        while True:
            query, whence = await sock.recvfrom(4096)
            reply = answer(query)
            if not asked[-1].endswith(f" {fails}"):
                await sock.sendto(reply, whence)

    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], sock.getsockname()[1]
        monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, sock)
            yield asked
            nursery.cancel_scope.cancel()


async def test_a_socket_and_an_address_need_no_name() -> None:
    found = await names.look_up(parse_url("unix:/run/x.sock"))
    assert found.instances == [(UnixAddress("/run/x.sock"),)]
    found = await names.look_up(parse_url("http://127.0.0.1:8080"))
    assert found.instances == [(TcpAddress("127.0.0.1", 8080),)]


async def test_all_addresses_of_a_plain_name_are_one_instance() -> None:
    found = await names.look_up(parse_url("http://localhost:8080"))
    assert len(found.instances) == 1
    assert TcpAddress("127.0.0.1", 8080) in found.instances[0]


async def test_each_address_that_dns_tells_is_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    records: Records = {("gpus", "A"): [b"\x0a\0\0\1", b"\x0a\0\0\2"]}
    async with dns_with(records, monkeypatch):
        found = await names.look_up(parse_url("dns+http://gpus:8080"))
    assert found.instances == [(TcpAddress("10.0.0.1", 8080),), (TcpAddress("10.0.0.2", 8080),)]
    assert found.lifetime == 5


async def test_services_tell_their_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    records: Records = {
        ("_llama._tcp.x", "SRV"): [srv(2, 81, "b.x"), srv(1, 80, "a.x")],
        ("a.x", "A"): [b"\x0a\0\0\1"],
        ("b.x", "AAAA"): [socket.inet_pton(socket.AF_INET6, "fd00::1")],
    }
    async with dns_with(records, monkeypatch):
        found = await names.look_up(parse_url("dns+http://_llama._tcp.x"))
    assert found.instances == [(TcpAddress("10.0.0.1", 80),), (TcpAddress("fd00::1", 81),)]


@pytest.mark.parametrize(("ttl", "lifetime"), [(0, 1), (86400, 30)])
async def test_a_lifetime_has_bounds(
    monkeypatch: pytest.MonkeyPatch, ttl: int, lifetime: int
) -> None:
    async with dns_with({("gpus", "A"): [b"\x0a\0\0\1"]}, monkeypatch, ttl):
        assert (await names.look_up(parse_url("dns+http://gpus:1"))).lifetime == lifetime


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("dns+http://nobody:80", "DNS knows no address of nobody"),
        ("dns+http://nobody", "DNS knows no SRV record of nobody"),
    ],
)
async def test_a_name_without_records_is_an_error(
    monkeypatch: pytest.MonkeyPatch, url: str, why: str
) -> None:
    async with dns_with({}, monkeypatch):
        with pytest.raises(OSError, match=why):
            await names.look_up(parse_url(url))


async def test_what_dns_says_of_one_kind_counts_while_it_is_silent_on_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records: Records = {("gpus", "A"): [b"\x0a\0\0\1"]}
    async with dns_with(records, monkeypatch, fails="AAAA"):
        found = await names.look_up(parse_url("dns+http://gpus:80"))
    assert found.instances == [(TcpAddress("10.0.0.1", 80),)]


async def test_a_dns_server_that_is_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_PATIENCE", 0.5)
    async with dns_with({}, monkeypatch, fails="A"):
        with pytest.raises(OSError, match="gpus"):
            await names.look_up(parse_url("dns+http://gpus:80"))


async def test_of_very_many_addresses_some_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    records: Records = {("gpus", "A"): [bytes((10, 0, n // 256, n % 256)) for n in range(300)]}
    async with dns_with(records, monkeypatch):
        found = await names.look_up(parse_url("dns+http://gpus:80"))
    assert len(found.instances) == names.MOST

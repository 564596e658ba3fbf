"""Ports are found free, and no two children get the same one."""

from __future__ import annotations

import socket

import pytest
from attrs import define

from llamasup.children.ports import LOOPBACK, Ports
from llamasup.config.addresses import Address, TcpAddress, UnixAddress
from llamasup.errors import ModelUnavailable
from llamasup.states import ChildState
from tests.harness import out_of_descriptors


@define(eq=False)
class Holder:
    address: Address
    state: ChildState = ChildState.STARTING


def test_a_port_that_is_found_can_be_listened_on() -> None:
    address = Ports().free()
    with socket.create_server((address.host, address.port)):
        assert address.host == LOOPBACK


def test_a_port_belongs_to_a_child_until_that_is_gone() -> None:
    ports = Ports()
    first = ports.free(20000)
    child, other = Holder(first), Holder(UnixAddress("/x.sock"))
    ports.give(child)
    ports.give(other)
    assert ports.free(first.port) != first
    child.state = ChildState.GONE
    assert ports.free(first.port) == first


def test_a_port_that_another_program_has_is_passed_over() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert Ports().free(port) != TcpAddress(LOOPBACK, port)


def test_any_port_is_looked_for_again_if_a_child_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([7, 7, 8])
    monkeypatch.setattr("llamasup.children.ports._bound", lambda port: next(found))
    ports = Ports()
    child = Holder(TcpAddress(LOOPBACK, 7))
    ports.give(child)
    assert ports.free() == TcpAddress(LOOPBACK, 8)


@pytest.mark.parametrize("first", [0, 65535])
def test_no_port_at_all_is_told(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    monkeypatch.setattr("llamasup.children.ports._bound", lambda port: 0)
    with pytest.raises(ModelUnavailable, match="no port is free"):
        Ports().free(first)


def test_a_shortage_is_told_as_one() -> None:
    with out_of_descriptors(), pytest.raises(ModelUnavailable, match="Too many open files"):
        Ports().free()

"""Addresses are listened on, all of them or none, and others after a move."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from llamasup.config.addresses import TcpAddress, UnixAddress
from llamasup.errors import OperatorError
from llamasup.http.listeners import Listener, Listeners


@contextmanager
def listening(addresses: Sequence[str]) -> Iterator[list[Listener]]:
    with Listeners() as listeners:
        listeners.move(addresses)
        yield list(listeners)


def can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(str(path)) == 0


# --- addresses ---


def test_port_zero_becomes_a_port() -> None:
    with listening(["127.0.0.1:0", "localhost:0"]) as listeners:
        for listener in listeners:
            address = listener.address
            assert isinstance(address, TcpAddress)
            assert address.port > 0


def test_an_address_that_says_https_is_secure_and_a_unix_socket_never_is(tmp_path: Path) -> None:
    with listening(["https://127.0.0.1:0", "127.0.0.1:0", f"unix:{tmp_path / 'x'}"]) as listeners:
        assert [listener.secure for listener in listeners] == [True, False, False]
        assert str(listeners[0].address).startswith("https://127.0.0.1:")


def test_an_empty_host_means_every_interface() -> None:
    with listening([":0"]) as listeners:
        addresses = [listener.address for listener in listeners]
        assert "0.0.0.0" in {address.host for address in addresses}  # type: ignore[union-attr]


def test_a_used_port_is_an_error_that_says_what_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OperatorError) as refusal, listening([f"127.0.0.1:{port}"]):
            pass
    message = str(refusal.value)
    assert f"127.0.0.1:{port}" in message
    assert os.strerror(errno.EADDRINUSE) in message
    assert "--listen" in message


def test_a_host_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(OperatorError, match=r"192\.0\.2\.1:80"), listening(["192.0.2.1:80"]):
        pass


@pytest.mark.parametrize("host", ["my..host", ".local", f"{'x' * 64}.local"])
def test_a_host_that_cannot_be_is_an_error(host: str) -> None:
    with pytest.raises(OperatorError, match="cannot listen on"), listening([f"{host}:8080"]):
        pass


def test_where_one_address_cannot_be_bound_none_stays_bound(tmp_path: Path) -> None:
    bound = tmp_path / "x.sock"
    with socket.create_server(("127.0.0.1", 0)) as other:
        used = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OperatorError), listening([f"unix:{bound}", used]):
            pass
    assert not bound.exists()


# --- moving ---


def test_only_the_new_addresses_are_listened_on_after_a_move(tmp_path: Path) -> None:
    stays, goes, comes = (tmp_path / name for name in ("stays", "goes", "comes"))
    with Listeners() as listeners:
        listeners.move([f"unix:{stays}", f"unix:{goes}"])
        before = next(iter(listeners))
        listeners.move([f"unix:{stays}", f"unix:{comes}"])
        assert next(iter(listeners)) is before
        assert (can_connect(stays), can_connect(comes)) == (True, True)
        assert not goes.exists()


def test_an_old_address_may_be_part_of_the_new_one() -> None:
    with Listeners() as listeners:
        listeners.move(["127.0.0.1:0"])
        bound = next(iter(listeners)).address
        assert isinstance(bound, TcpAddress)
        listeners.move([])
        listeners.move([f"127.0.0.1:{bound.port}"])
        listeners.move([f"0.0.0.0:{bound.port}"])
        assert [str(listener.address) for listener in listeners] == [f"0.0.0.0:{bound.port}"]


def test_a_move_that_cannot_be_leaves_everything_as_it_was(tmp_path: Path) -> None:
    old = tmp_path / "old"
    with socket.create_server(("127.0.0.1", 0)) as other, Listeners() as listeners:
        listeners.move([f"unix:{old}"])
        with pytest.raises(OperatorError):
            listeners.move([f"unix:{tmp_path / 'new'}", f"127.0.0.1:{other.getsockname()[1]}"])
        assert can_connect(old)
        assert not (tmp_path / "new").exists()


# --- Unix sockets ---


def test_a_unix_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listening([f"unix:{path}"]) as (listener,):
        assert listener.address == UnixAddress(str(path))
        assert can_connect(path)
    assert not path.exists()


def test_the_stale_socket_of_a_dead_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with listening([f"unix:{path}"]):
        assert can_connect(path)


def test_the_socket_of_a_living_one_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with (
            pytest.raises(OperatorError, match=os.strerror(errno.EADDRINUSE)),
            listening([f"unix:{path}"]),
        ):
            pass
        assert can_connect(path)


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("precious")
    with pytest.raises(OperatorError), listening([f"unix:{path}"]):
        pass
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OperatorError, match=os.strerror(errno.ENOENT)),
        listening([f"unix:{tmp_path}/none/x.sock"]),
    ):
        pass

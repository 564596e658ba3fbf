"""Addresses: every form that is accepted, and what is said about all others."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.addresses import (
    Address,
    TcpAddress,
    UnixAddress,
    from_here,
    parse_address,
    url_of,
)
from llamasup.config.problems import Unfit

hosts = st.one_of(
    st.just(""),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,5})?", fullmatch=True),
)
tcp_addresses = st.builds(TcpAddress, hosts, st.integers(0, 65535), st.booleans())
unix_addresses = st.from_regex(r"/[a-z0-9_./ -]{0,60}[a-z]", fullmatch=True).map(UnixAddress)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", TcpAddress("127.0.0.1", 8080)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("gpu-box.lan:65535", TcpAddress("gpu-box.lan", 65535)),
        (":8080", TcpAddress("", 8080)),
        ("[::1]:8080", TcpAddress("::1", 8080)),
        ("[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        ("https://:8443", TcpAddress("", 8443, secure=True)),
        ("https://[::1]:8443", TcpAddress("::1", 8443, secure=True)),
        ("unix:/run/llamasup.sock", UnixAddress("/run/llamasup.sock")),
        ("unix:/srv/a space:and colon", UnixAddress("/srv/a space:and colon")),
    ],
)
def test_each_form_is_understood(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", '"" is not an address'),
        ("8080", '"8080" is not an address'),
        ("localhost", '"localhost" is not an address'),
        ("localhost:", '"localhost:" is not an address'),
        ("localhost:http", '"localhost:http" is not an address'),
        ("localhost:-1", '"localhost:-1" is not an address'),
        ("localhost:8080/", '"localhost:8080/" is not an address'),
        ("::1:8080", '"::1:8080" is not an address'),
        ("[::1]", '"[::1]" is not an address'),
        ("[::g]:80", '"::g" is not an IP address'),
        ("127.0.0.256:80", '"127.0.0.256" is not an IP address'),
        ("a:65536", '"a:65536" has a port above 65535'),
        ("a:٨٠", '"a:٨٠" is not an address'),
        ("http://127.0.0.1:80", '"http://127.0.0.1:80" is a URL, not an address'),
        ("https://127.0.0.1", '"https://127.0.0.1" is not an address'),
        ("https://127.0.0.1:80/", '"https://127.0.0.1:80/" is a URL, not an address'),
        ("https://unix:/x", '"https://unix:/x" is a URL, not an address'),
        ("unix:", '"" is not the full path of a socket'),
        ("unix:run/x.sock", '"run/x.sock" is not the full path of a socket'),
        ("unix:/run/", '"/run/" is not the full path of a socket'),
        ("unix:/" + "x" * 107, "the socket's path is longer than 107 bytes"),
    ],
)
def test_anything_else_is_refused_with_a_word_on_what_would_be_right(text: str, what: str) -> None:
    with pytest.raises(Unfit) as caught:
        parse_address(text)
    assert caught.value.what == what
    assert caught.value.fix


@pytest.mark.parametrize(
    ("listens", "found"),
    [
        (":80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("https://0.0.0.0:80", "https://127.0.0.1:80"),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("unix:/x.sock", "unix:/x.sock"),
    ],
)
def test_a_server_on_all_interfaces_is_reached_at_the_loopback_address(
    listens: str, found: str
) -> None:
    assert str(from_here(parse_address(listens))) == found


@given(st.one_of(tcp_addresses, unix_addresses))
def test_an_address_reads_back_as_it_was_written(address: Address) -> None:
    assert parse_address(str(address)) == address


@given(st.text(max_size=30) | st.text(alphabet="[]:.0123456789abunix/", max_size=30))
def test_any_text_is_an_address_or_a_refusal(text: str) -> None:
    try:
        address = parse_address(text)
    except Unfit:
        return
    if isinstance(address, TcpAddress):
        assert 0 <= address.port <= 65535
        assert ":" not in address.host or ipaddress.IPv6Address(address.host)
    else:
        assert address.path.startswith("/")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (TcpAddress("127.0.0.1", 8080), "http://127.0.0.1:8080"),
        (TcpAddress("::1", 8443, secure=True), "https://[::1]:8443"),
        (UnixAddress("/run/llamasup.sock"), "unix:/run/llamasup.sock"),
    ],
)
def test_an_address_is_shown_as_clients_write_it(address: Address, url: str) -> None:
    assert url_of(address) == url

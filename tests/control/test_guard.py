"""No web page does what an operator does, by whatever trick, nor anybody without the key."""

from __future__ import annotations

import pytest

from llamasup.control.guard import demand_key, header, refuse_foreign_hosts, refuse_web_pages
from llamasup.errors import Forbidden, Unauthorized

LISTEN = ["127.0.0.1:8080", ":9", "Box.example:80", "[::1]:1", "unix:/x.sock"]


def test_the_first_header_of_a_name_counts() -> None:
    headers = [(b"a", b"1"), (b"b", b"2"), (b"b", b"3")]
    assert (header(headers, b"b"), header(headers, b"c")) == (b"2", b"")


def test_what_has_an_origin_is_a_web_page() -> None:
    refuse_web_pages([(b"host", b"x")])
    with pytest.raises(Forbidden):
        refuse_web_pages([(b"origin", b"null")])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1",
        "10.1.2.3:80",
        "[::1]:80",
        "[fe80::1]",
        "box.example",
    ],
)
def test_a_host_that_nobody_else_can_be_is_let_in(host: str) -> None:
    refuse_foreign_hosts([(b"host", host.encode())], LISTEN)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a:b:c",
        ":80",
        "\xff",
    ],
)
def test_a_host_of_another_name_is_refused(host: str) -> None:
    with pytest.raises(Forbidden, match="no name of this host"):
        refuse_foreign_hosts([(b"host", host.encode("latin-1"))], LISTEN)


def test_without_a_host_nobody_is_let_in() -> None:
    with pytest.raises(Forbidden):
        refuse_foreign_hosts([], LISTEN)


@pytest.mark.parametrize("given", [b"Bearer k\xc3\xa9y", b"bearer  k\xc3\xa9y "])
def test_the_key_lets_in(given: bytes) -> None:
    demand_key([(b"authorization", given)], "kéy")


@pytest.mark.parametrize(
    "given", [b"", b"Bearer ", b"Bearer ke", b"Basic key", b"key", b"Bearer \xff"]
)
def test_nothing_but_the_key_lets_in(given: bytes) -> None:
    with pytest.raises(Unauthorized):
        demand_key([(b"authorization", given)], "key")


def test_where_there_is_no_key_everybody_is_let_in() -> None:
    demand_key([], "")

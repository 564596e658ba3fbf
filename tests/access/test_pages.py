"""No strangers' web page uses us, and none does what an operator does, by whatever trick."""

from __future__ import annotations

import pytest

from llamasup.access.pages import (
    cors_lines,
    lines_for_page,
    refuse_foreign_hosts,
    refuse_foreign_pages,
    refuse_web_pages,
)
from llamasup.config.schema import Server
from llamasup.errors import Forbidden

SERVER = Server(
    listen=["127.0.0.1:8080", ":9", "Box.example:80", "[::1]:1", "unix:/x.sock"],
    hosts=("llm.lab.example",),
    admin_key="key",
)


def page(origin: str, host: str = "127.0.0.1:8080") -> list[tuple[bytes, bytes]]:
    return [(b"host", host.encode()), (b"origin", origin.encode("latin-1"))]


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:3000",
        "HTTPS://LocalHost:8443",
        "http://tauri.localhost",
        "http://127.0.0.1:5173",
        "http://127.1.2.3",
        "http://[::1]:80",
        "http://0.0.0.0:3000",
        "app://obsidian.md",
        "tauri://localhost",
        "vscode-webview://1a2b3c",
    ],
)
def test_pages_of_this_machine_and_of_apps_may_use_it_unless_told_otherwise(origin: str) -> None:
    refuse_foreign_pages(page(origin), Server())
    with pytest.raises(Forbidden, match="cors_origins"):
        refuse_foreign_pages(page(origin), Server(cors_origins=()))


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
        "http://evil.example/?localhost",
        "http://localhost@evil.example",
        "http://evil-localhost",
        "http://127.0.0.1.evil.example",
        "http://localhost:3000\n",
        "http://10.0.0.7",
        "chrome-extension://abc",
        "https://evil.example:8080",
        "\xff",
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "evil.example", "evil.example:8080", ""])
def test_pages_of_strangers_may_not_whatever_they_call_us(origin: str, host: str) -> None:
    with pytest.raises(Forbidden):
        refuse_foreign_pages(page(origin, host), SERVER)


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (("*",), "https://anybody.example"),
        (("local", "https://chat.example"), "https://chat.example"),
        (("https://Chat.example",), "https://chat.example"),
        (("null",), "null"),
    ],
)
def test_pages_that_are_listed_may_use_it(origins: tuple[str, ...], origin: str) -> None:
    refuse_foreign_pages(page(origin), Server(cors_origins=origins))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://10.1.2.3:8080", "10.1.2.3:8080"),
        ("https://llm.lab.example", "LLM.lab.example"),
        ("http://box.example", "box.example"),
    ],
)
def test_our_own_pages_may_use_it_under_names_that_are_ours(origin: str, host: str) -> None:
    refuse_foreign_pages(page(origin, host), SERVER)
    with pytest.raises(Forbidden):
        refuse_foreign_pages(page(origin + ":81", host), SERVER)


def test_one_foreign_origin_among_several_is_enough_to_refuse() -> None:
    with pytest.raises(Forbidden):
        refuse_foreign_pages([*page("http://localhost"), (b"origin", b"https://e.example")], SERVER)


def test_a_request_with_the_operators_key_comes_from_no_foreign_page() -> None:
    asked = page("https://evil.example")
    refuse_foreign_pages([*asked, (b"authorization", b"Bearer key")], SERVER)
    for given in (b"Bearer another", b"Bearer ", b""):
        with pytest.raises(Forbidden):
            refuse_foreign_pages([*asked, (b"authorization", given)], SERVER)
        with pytest.raises(Forbidden):
            refuse_foreign_pages([*asked, (b"authorization", given)], Server())


def test_a_page_is_told_by_its_origin_alone() -> None:
    refuse_foreign_pages([(b"host", b"evil.example")], SERVER)


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        (("*",), [b"Access-Control-Allow-Origin: *"]),
        (("local",), [b"Access-Control-Allow-Origin: http://localhost", b"Vary: Origin"]),
    ],
)
def test_a_page_that_may_use_it_may_read_the_reply(
    origins: tuple[str, ...], expected: list[bytes]
) -> None:
    assert cors_lines(origins, b"http://localhost") == [
        *expected,
        b"Access-Control-Expose-Headers: *",
    ]


def test_only_a_page_that_may_use_it_gets_lines_with_an_error() -> None:
    headers = [(b"origin", b"http://localhost"), (b"host", b"localhost")]
    assert lines_for_page(headers, Server()) == cors_lines(("local",), b"http://localhost")
    assert lines_for_page([(b"origin", b"https://strange.example")], Server()) == []
    assert lines_for_page([], Server()) == []


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
        "llm.lab.example:443",
    ],
)
def test_a_host_that_can_mean_no_other_site_is_let_in(host: str) -> None:
    refuse_foreign_hosts([(b"host", host.encode())], SERVER)


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
        refuse_foreign_hosts([(b"host", host.encode("latin-1"))], SERVER)


def test_a_request_without_a_host_is_not_let_in() -> None:
    with pytest.raises(Forbidden):
        refuse_foreign_hosts([], SERVER)

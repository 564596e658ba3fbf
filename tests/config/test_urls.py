"""Where an instance is: every form that may be written, and what is refused."""

from __future__ import annotations

import pytest

from llamasup.config.addresses import UnixAddress
from llamasup.config.problems import Unfit
from llamasup.config.urls import Url, parse_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://gpubox:8080", Url("gpubox", 8080)),
        ("http://gpubox", Url("gpubox", 80)),
        ("https://gpu.example/", Url("gpu.example", 443, tls=True)),
        ("http://[::1]:8080", Url("::1", 8080)),
        ("http://10.0.0.1:8080/llama/a/", Url("10.0.0.1", 8080, path="/llama/a")),
        ("dns+http://gpus:8080", Url("gpus", 8080, each=True)),
        ("dns+https://_llama._tcp.example", Url("_llama._tcp.example", None, tls=True, each=True)),
        ("unix:/run/llama.sock", Url(socket=UnixAddress("/run/llama.sock"))),
    ],
)
def test_it_is_read(text: str, url: Url) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("gpubox:8080", "ftp://x", "http://", "http://a b", "http://u:p@x", "http://x:0"),
        *("http://x:99999", "http://x?a=b", "http://x#a", "unix:x", "http://x/v1"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(Unfit, match="; "):
        parse_url(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("http://gpubox", "gpubox"),
        ("http://gpubox:8080", "gpubox:8080"),
        ("https://gpubox:443", "gpubox"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("unix:/run/llama.sock", "localhost"),
    ],
)
def test_the_host_header_names_it(text: str, host: str) -> None:
    assert parse_url(text).authority == host

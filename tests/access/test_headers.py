"""A header is found by its name in lower case."""

from __future__ import annotations

from llamasup.access.headers import header


def test_the_first_header_of_a_name_counts() -> None:
    headers = [(b"a", b"1"), (b"b", b"2"), (b"b", b"3")]
    assert (header(headers, b"b"), header(headers, b"c")) == (b"2", b"")

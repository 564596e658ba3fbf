"""Clients learn when another try makes sense, each at another time."""

from __future__ import annotations

from collections import Counter

from llamasup.http.retrying import advice


def test_where_another_try_is_no_use_the_sdks_are_told() -> None:
    assert advice(None, b"x") == [(b"x-should-retry", b"false")]


def test_clients_that_were_refused_together_come_back_apart_and_never_too_early() -> None:
    given = [dict(advice(5.0, b"%016x" % number)) for number in range(1000)]
    seconds = Counter(int(headers[b"Retry-After"]) for headers in given)
    assert seconds.keys() == {6, 7, 8}
    assert min(seconds.values()) > 150
    exactly = {int(headers[b"Retry-After-Ms"]) for headers in given}
    assert min(exactly) >= 5000
    assert max(exactly) <= 7500
    assert len(exactly) > 800


def test_a_long_while_is_not_made_much_longer() -> None:
    given = {int(dict(advice(60.0, b"%016x" % number))[b"Retry-After"]) for number in range(1000)}
    assert given == {*range(61, 71)}


def test_a_short_while_is_a_second_at_least_for_who_reads_seconds() -> None:
    headers = dict(advice(0.2, b"x"))
    assert headers[b"Retry-After"] == b"1"
    assert 200 <= int(headers[b"Retry-After-Ms"]) <= 300
    assert advice(0.0, b"x")[0] == (b"Retry-After", b"1")

"""A client is known by its key or its place, and `Priority` is read strictly or not at all."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.front import callers
from llamasup.front.callers import urgency
from llamasup.http.requests import Request
from llamasup.pool.queue import Client
from tests.harness import steps

SECRET = b"sk-a-secret-of-some-length"
HOME = "192.0.2.1"


def asked(*headers: tuple[bytes, bytes]) -> Request:
    return Request(b"POST", b"/", list(headers), True, False, b"the-id")


def client(*headers: tuple[bytes, bytes], peer: str = HOME) -> Client:
    return callers.client(asked(*headers), peer)


# --- who asks ---


def test_a_client_is_known_by_its_place_and_there_by_its_key() -> None:
    assert client() == Client(HOME)
    assert client((b"authorization", b"Basic Zm9vOmJhcg==")) == Client(HOME)
    assert client((b"authorization", b"Bearer ")) == Client(HOME)
    assert client((b"x-api-key", b"")) == Client(HOME)
    assert client((b"x-api-key", SECRET)).place == HOME


def test_a_key_is_the_same_however_and_from_wherever_it_is_sent() -> None:
    ways = [
        (b"authorization", b"Bearer " + SECRET),
        (b"authorization", b"bearer  " + SECRET),
        (b"x-api-key", SECRET),
    ]
    assert len({client(way, peer=peer).key for way in ways for peer in (HOME, "unix")}) == 1
    assert client((b"x-api-key", SECRET)) != client((b"x-api-key", b"another"))


def test_clients_behind_another_llamasup_are_told_apart_but_have_one_place() -> None:
    one = client((b"x-llamasup-for", b"0123456789abcdef"))
    other = client((b"x-llamasup-for", b"fedcba9876543210"))
    assert one != other
    assert (one.place, other.place) == (HOME, HOME)
    assert client((b"x-llamasup-for", b"no digest")) == client()


def test_nothing_of_a_key_can_be_read_in_what_it_becomes() -> None:
    digest = client((b"x-api-key", SECRET)).key.encode()
    assert not [
        SECRET[at : at + 4] for at in range(len(SECRET) - 3) if SECRET[at : at + 4] in digest
    ]


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("unix", "unix"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
    ],
)
def test_a_network_of_ipv6_is_one_place(peer: str, place: str) -> None:
    assert callers.place(peer) == place


# --- how urgently ---


@pytest.mark.parametrize(
    ("value", "number"), [(b"u=0", 3), (b"u=3", 0), (b"i", 0), (b"u=7", -4), (b"nonsense!", 0)]
)
def test_the_more_urgent_a_request_the_higher_its_priority(value: bytes, number: int) -> None:
    assert callers.priority(asked((b"priority", value))) == number


def test_a_request_that_does_not_say_is_as_urgent_as_usual() -> None:
    assert callers.priority(asked()) == 0


def test_several_priority_lines_are_one_dictionary() -> None:
    assert callers.priority(asked((b"priority", b"u=1"), (b"priority", b"i, u=2"))) == 1
    assert callers.priority(asked((b"priority", b"u=1"), (b"priority", b"u="))) == 0


@pytest.mark.parametrize(
    "lines",
    [
        [b"u=1" + b",u=1" * 15_000],
        [b"u=1"] * 4000,
        [b"", b"u=1", *[b""] * 4000],
        [b"u=1" + b" " * 126],
    ],
    ids=range(4),
)
def test_a_very_long_priority_counts_as_none(lines: list[bytes]) -> None:
    many = asked(*((b"priority", line) for line in lines))
    assert callers.priority(many) == 0
    assert steps(lambda: callers.priority(many)) < 10_000  # it is not looked into


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"u=5, i", 5),
        (b"i=?0,u=5", 5),
        (b"a\t ,\tu=5", 5),
        (b"u=1, u=5", 5),
        (b"u=05", 5),
        (b'u=5;note="a, u=1";x', 5),
        (b'a=(1 "(" token;q=1.5 );x, u=5', 5),
        (b"a=:aGk=:, *b=*c:d/e, u=5", 5),
    ],
)
def test_urgency_is_found_among_other_members(value: bytes, expected: int) -> None:
    assert urgency(value) == expected


@pytest.mark.parametrize("value", [b"u=8", b"u=-1", b"u=5.0", b"u", b'u="5"', b"u=five", b"u=(5)"])
def test_an_urgency_that_is_none_is_the_usual_one(value: bytes) -> None:
    assert urgency(value) == 3


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"",
            b"u=5,",
            b",u=5",
            b"u=5 i",
            b"u= 5",
            b"u =5",
            b"U=5",
            b"u=5;",
            b"u=5;=1",
            b"u=5\x00",
        ),
        *(b'u=5, a="open', b"u=5, a=(1", b'u=5, a=(1"x")', b"u=5, a=1.2345", b"u=5, a=:!:"),
        *(b"u=5, a=1234567890123456", b"u=5, \xff=1", b"u=5, a=?2"),
    ],
)
def test_a_malformed_dictionary_says_nothing(value: bytes) -> None:
    assert urgency(value) == 3


BARE_ITEMS = [
    *("0", "-1", "999999999999999", "-1.5", "999999999999.999", "?0", "?1", "*", "a:/b", "u"),
    *('""', '"a, u=1"', r'"\"\\"', "::", ":aGk=:"),
]
PARAMETERS = ["", ";a", ";u=1", '; a="x";b=?0']
NAMES = ["i", "a.b", "*-_", "uu", "u-"]

names, parameters = st.sampled_from(NAMES), st.sampled_from(PARAMETERS)
items = st.builds("{}{}".format, st.sampled_from(BARE_ITEMS), parameters)
inner_lists = st.builds("({}){}".format, st.lists(items, max_size=3).map(" ".join), parameters)
values = parameters | st.builds("={}".format, items | inner_lists)
members = st.lists(st.builds("{}{}".format, names, values), max_size=4)
commas = st.sampled_from([",", ", ", " ,\t"])


@given(members, st.integers(0, 7), parameters, members, commas)
def test_urgency_is_found_in_every_dictionary(
    before: list[str], number: int, its_own: str, after: list[str], comma: str
) -> None:
    dictionary = comma.join([*before, f"u={number}{its_own}", *after])
    assert urgency(dictionary.encode()) == number


@given(members, st.integers(0, 7), st.sampled_from("=()@\"' ,\\"))
def test_no_dictionary_with_a_malformed_end_says_anything(
    before: list[str], number: int, end: str
) -> None:
    assert urgency(", ".join([*before, f"u={number}", end]).encode()) == 3


@given(st.binary())
def test_whatever_is_sent_is_some_urgency(value: bytes) -> None:
    assert urgency(value) in range(8)


MANY = 300_000


@pytest.mark.parametrize(
    "value",
    [b"a=(" + b"1 " * MANY, b"a=(1" + b" " * 2 * MANY, b"a;" * MANY, b'a="' + b'\\"' * MANY],
    ids=range(4),
)
def test_a_long_dictionary_is_read_in_no_time(value: bytes) -> None:
    started = time.thread_time()
    assert urgency(value) == 3
    assert time.thread_time() - started < 2  # a hundredth of that, and an hour if it were quadratic


@pytest.mark.parametrize(
    ("of_key", "header", "priority"),
    [
        (None, None, 0),
        (None, b"u=0", 3),
        (2, None, 2),
        (2, b"u=0", 2),
        (2, b"u=2", 1),
        (0, b"u=0", 0),
        (0, b"u=7", -4),
        (-2, b"u=0", -2),
    ],
)
def test_a_request_can_only_lower_the_priority_of_its_key(
    of_key: int | None, header: bytes | None, priority: int
) -> None:
    headers = [] if header is None else [(b"priority", header)]
    assert callers.priority(asked(*headers), of_key) == priority


def test_a_valid_key_is_one_client_wherever_it_is_used() -> None:
    clients = [callers.client(asked(), peer, "alice") for peer in (HOME, "192.0.2.2")]
    assert {client.place for client in clients} == {callers.payer(HOME, "alice")} == {"key alice"}
    assert len(set(clients)) == 2  # its addresses take turns
    assert callers.client(asked(), HOME).place == callers.payer(HOME, "") == HOME

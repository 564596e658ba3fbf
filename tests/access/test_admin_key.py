"""Whoever has the admin key is let in; whoever guesses at it has to wait."""

from __future__ import annotations

import pytest

from llamasup.access.admin_key import MOST_TRIES, WITHIN, Tries
from llamasup.errors import TooManyTries, Unauthorized

RIGHT = [(b"authorization", b"Bearer key")]
WRONG = [(b"authorization", b"Bearer guess")]


def demand(headers: list[tuple[bytes, bytes]], key: str = "key") -> None:
    Tries().demand_key(headers, key, "1.2.3.4", 0.0)


@pytest.mark.parametrize("given", [b"Bearer k\xc3\xa9y", b"bearer  k\xc3\xa9y "])
def test_the_key_lets_in(given: bytes) -> None:
    demand([(b"authorization", given)], "kéy")


@pytest.mark.parametrize(
    "given", [b"", b"Bearer ", b"Bearer ke", b"Basic key", b"key", b"Bearer \xff"]
)
def test_nothing_but_the_key_lets_in(given: bytes) -> None:
    with pytest.raises(Unauthorized):
        demand([(b"authorization", given)])


def test_without_an_operators_key_every_request_is_let_in() -> None:
    demand([], "")


def guessed(times: int) -> Tries:
    tries = Tries()
    for guess in range(times):
        with pytest.raises(Unauthorized):
            tries.demand_key(WRONG, "key", "1.2.3.4", float(guess))
    return tries


def test_after_too_many_wrong_keys_even_the_right_one_has_to_wait() -> None:
    tries = guessed(MOST_TRIES)
    with pytest.raises(TooManyTries) as refused:
        tries.demand_key(RIGHT, "key", "1.2.3.4", 10.0)
    assert refused.value.retry_after == WITHIN - 10
    tries.demand_key(RIGHT, "key", "1.2.3.4", WITHIN)


def test_another_client_need_not_wait() -> None:
    guessed(MOST_TRIES).demand_key(RIGHT, "key", "1.2.3.5", 10.0)


def test_the_right_key_wipes_what_was_guessed_before() -> None:
    tries = guessed(MOST_TRIES - 1)
    tries.demand_key(RIGHT, "key", "1.2.3.4", 10.0)
    with pytest.raises(Unauthorized):
        tries.demand_key(WRONG, "key", "1.2.3.4", 10.0)
    tries.demand_key(RIGHT, "key", "1.2.3.4", 10.0)


def test_to_come_without_a_key_is_no_guess() -> None:
    tries = Tries()
    for _ in range(MOST_TRIES + 1):
        with pytest.raises(Unauthorized):
            tries.demand_key([], "key", "1.2.3.4", 0.0)


def test_the_guesses_of_many_clients_take_a_bounded_room() -> None:
    tries = Tries()
    for client in range(5000):
        with pytest.raises(Unauthorized):
            tries.demand_key(WRONG, "key", str(client), 0.0)
    assert len(tries._wrong) <= 1024


@pytest.mark.parametrize(
    "given",
    [
        (b"x-api-key", b"key"),
        (b"authorization", b"Basic bWU6a2V5"),
        (b"authorization", b"Basic a2V5"),
    ],
)
def test_the_key_may_be_sent_as_clients_send_theirs(given: tuple[bytes, bytes]) -> None:
    demand([given])


def test_guesses_count_in_whatever_header_they_come() -> None:
    tries = Tries()
    for _ in range(MOST_TRIES):
        with pytest.raises(Unauthorized):
            tries.demand_key([(b"x-api-key", b"guess")], "key", "1.2.3.4", 0.0)
    with pytest.raises(TooManyTries):
        tries.demand_key([(b"x-api-key", b"key")], "key", "1.2.3.4", 0.0)

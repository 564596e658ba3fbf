"""The log tells of refusals, and no client fills it."""

from __future__ import annotations

from llamasup.front.refusals import AT_ONCE, MOST_CLIENTS, Refusals


def test_a_flood_is_counted_and_not_told() -> None:
    refusals = Refusals()
    assert sum(refusals.told("x", at / 1000) for at in range(1000)) == AT_ONCE
    assert refusals.told("x", 2.0)
    assert refusals.untold("x", 2.0) == [("x", 1000 - AT_ONCE)]
    assert refusals.untold("x", 2.0) == []


def test_one_a_second_is_told_always() -> None:
    refusals = Refusals()
    assert all(refusals.told("x", float(at)) for at in range(1000))


def test_a_flood_hides_no_other_clients_refusals() -> None:
    refusals = Refusals()
    for at in range(1000):
        refusals.told("x", at / 1000)
    assert refusals.told("y", 1.0)
    assert refusals.untold("y", 1.0) == []


def test_a_flood_that_has_ended_is_counted_with_any_clients_next_refusal() -> None:
    refusals = Refusals()
    for _ in range(100):
        refusals.told("x", 0.0)
    refusals.told("y", 60.0)
    assert refusals.untold("y", 60.0) == [("x", 100 - AT_ONCE)]


def test_so_many_clients_are_known_and_no_more() -> None:
    refusals = Refusals()
    for number in range(MOST_CLIENTS * 2):
        for _ in range(AT_ONCE + 1):
            refusals.told(f"{number}", 0.0)
        refusals.untold(f"{number}", 0.0)
    assert len(refusals._clients) <= MOST_CLIENTS

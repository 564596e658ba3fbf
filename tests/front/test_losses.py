"""A request is sent again as often as it may be, and other requests' losses count for little."""

from __future__ import annotations

from llamasup.front.losses import Losses


def test_a_request_may_cause_so_many_losses_and_no_more() -> None:
    losses = Losses(2)
    for _ in range(2):
        assert losses.may_grow
        losses.add(lambda: False)
    assert not losses.may_grow
    assert not losses.are_too_many
    losses.add(lambda: False)
    assert losses.are_too_many


def test_what_others_caused_does_not_count_but_has_a_bound() -> None:
    losses = Losses(0)
    for _ in range(8):
        losses.add(lambda: True)
        assert not losses.are_too_many
    losses.add(lambda: True)
    assert losses.are_too_many


def test_a_loss_stops_to_count_when_its_cause_becomes_known() -> None:
    losses, caused_by_other = Losses(0), False
    losses.add(lambda: caused_by_other)
    assert losses.are_too_many
    caused_by_other = True
    assert not losses.are_too_many

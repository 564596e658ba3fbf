"""Slots count who is on a child, and say whether there is room for one more."""

from __future__ import annotations

from llamasup.children.slots import Slots


def test_there_is_room_until_all_are_taken() -> None:
    slots = Slots(2)
    slots.take()
    assert slots.free
    slots.take()
    assert not slots.free
    slots.give_back()
    assert slots.free


def test_fewer_than_are_taken_take_effect_as_they_are_given_back() -> None:
    slots = Slots(2)
    slots.take()
    slots.take()
    slots.size = 1
    slots.give_back()
    assert not slots.free
    slots.give_back()
    assert slots.free


def test_a_child_that_ends_has_room_for_no_request_and_taken_slots_stay_taken() -> None:
    slots = Slots(2)
    slots.take()
    slots.closed.set()
    assert not slots.free
    assert slots.taken == 1

"""Only the transitions of the table are made; every other one is a mistake that shows."""

from __future__ import annotations

from itertools import product

import pytest

from llamasup.states import ChildState, KeeperState, moved

ALLOWED = {
    (ChildState.STARTING, ChildState.READY),
    (ChildState.STARTING, ChildState.STOPPING),
    (ChildState.STARTING, ChildState.GONE),
    (ChildState.READY, ChildState.RETIRING),
    (ChildState.READY, ChildState.STOPPING),
    (ChildState.RETIRING, ChildState.STOPPING),
    (ChildState.STOPPING, ChildState.GONE),
    (KeeperState.UNLOADED, KeeperState.LOADING),
    (KeeperState.LOADING, KeeperState.WAITING),
    (KeeperState.WAITING, KeeperState.LOADING),
    (KeeperState.WAITING, KeeperState.FAILED),
    (KeeperState.WAITING, KeeperState.UNLOADED),
    (KeeperState.LOADING, KeeperState.READY),
    (KeeperState.LOADING, KeeperState.FAILED),
    (KeeperState.LOADING, KeeperState.UNLOADED),
    (KeeperState.READY, KeeperState.UNLOADED),
    (KeeperState.READY, KeeperState.FAILED),
    (KeeperState.READY, KeeperState.LEAVING),
    (KeeperState.LOADING, KeeperState.OVERTAKEN),
    (KeeperState.WAITING, KeeperState.OVERTAKEN),
    (KeeperState.OVERTAKEN, KeeperState.LEAVING),
    (KeeperState.OVERTAKEN, KeeperState.UNLOADED),
    (KeeperState.LEAVING, KeeperState.UNLOADED),
    (KeeperState.FAILED, KeeperState.LOADING),
}
PAIRS = [*product(ChildState, repeat=2), *product(KeeperState, repeat=2)]


@pytest.mark.parametrize(("state", "to"), sorted(ALLOWED, key=str))
def test_a_state_may_be_followed_by_those_of_the_table(state: ChildState, to: ChildState) -> None:
    assert moved(state, to) is to


@pytest.mark.parametrize(("state", "to"), [pair for pair in PAIRS if pair not in ALLOWED])
def test_no_other_state_may_follow(state: ChildState, to: ChildState) -> None:
    with pytest.raises(AssertionError, match="cannot be followed by"):
        moved(state, to)

"""A request's trail ends after so many instances that it may have ended."""

from __future__ import annotations

from llamasup.pool.trail import MOST_FAILURES, Trail


def test_refusals_are_no_failures_and_failures_have_a_bound() -> None:
    trail = Trail(tried=set("abcdefgh"))
    for _ in range(MOST_FAILURES):
        assert not trail.is_too_long
        trail.failures += 1
    assert trail.is_too_long

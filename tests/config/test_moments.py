"""Every form of a moment, and what is said about all others."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.moments import read_moment, write_moment
from llamasup.config.problems import Unfit
from llamasup.config.schema import Moment

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2027-01-01", NEW_YEAR),
        ('"2027-01-01"', NEW_YEAR),
        ("2027-01-01T00:00:00", NEW_YEAR),
        ("2027-01-01T01:30:00+01:30", NEW_YEAR),
        ("2027-01-01 00:00:00Z", NEW_YEAR),
        ('"2027-01-01T00:00:00Z"', NEW_YEAR),
        ('"never"', 0),
        ("1960-01-01", 1),
    ],
)
def test_a_moment_is_read(written: str, seconds: float) -> None:
    assert read_moment(tomllib.loads(f"at = {written}")["at"]) == seconds


@pytest.mark.parametrize("value", ["", "tomorrow", "2027-13-01", 5, True, None, ["2027-01-01"]])
def test_anything_else_is_no_moment(value: object) -> None:
    with pytest.raises(Unfit, match="is not a date; write one such as 2027-01-31"):
        read_moment(value)


@given(st.just(0) | st.integers(1, 4_000_000_000))
def test_what_is_written_is_read_as_the_same(seconds: int) -> None:
    assert read_moment(write_moment(Moment(seconds))) == seconds

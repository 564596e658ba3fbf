"""Every form of a duration and of a size, and what is said about all others."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.problems import Unfit
from llamasup.config.schema import Bytes, Seconds
from llamasup.config.units import read_duration, read_size, rounded_size, write_duration, write_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90),
        ("30m", 1800),
        ("1.5h", 5400),
        ("1d", 86400),
        ("15", 15),
        ("0.5", 0.5),
        ("0s", 0),
        ("2 m", 120),
        ("9ms", 0.009),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1 quark", "1,5h", "1S", "nan", "inf", "1e3", "1h30m", "٣s", "9" * 25]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(Unfit, match=r'is not a duration; write one such as "250ms"'):
        read_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 64 << 20),
        ("1.5GB", 1_500_000_000),
        ("512k", 512_000),
        ("512Ki", 512 << 10),
        ("2 gib", 2 << 30),
        ("1T", 10**12),
        ("123", 123),
        ("7B", 7),
        ("1.1MiB", 1_153_434),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "1.5", "1.5B", "5iB", "1 apple", "1e3", "nan", "٣k", "9" * 18 + "T"]
)
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(Unfit, match=r'write one such as "64MiB"'):
        read_size(text)


@given(st.text(max_size=12) | st.text("0123456789.kmgtihdsbB ", max_size=24))
def test_any_text_is_a_finite_duration_and_size_or_is_refused(text: str) -> None:
    for read in (read_duration, read_size):
        try:
            value = read(text)
        except Unfit:
            continue
        assert 0 <= value < math.inf


@pytest.mark.parametrize("value", [True, -1, -0.1, math.nan, math.inf, 2**63, None, []])
def test_only_a_sane_number_is_a_duration(value: object) -> None:
    with pytest.raises(Unfit, match="is not a duration"):
        read_duration(value)


@pytest.mark.parametrize("value", [True, -1, 1.0, 2**63, None, []])
def test_only_a_sane_whole_number_is_a_size(value: object) -> None:
    with pytest.raises(Unfit, match="is not a size"):
        read_size(value)


def test_plain_numbers_are_seconds_and_bytes() -> None:
    assert read_duration(90) == read_duration(90.0) == 90
    assert read_size(2**63 - 1) == 2**63 - 1


def test_a_negative_zero_is_zero() -> None:
    assert str(read_duration(-0.0)) == "0.0"


@pytest.mark.parametrize(
    ("seconds", "written"), [(90.0, "90s"), (0.0, "0s"), (0.25, 0.25), (1e6, "1000000s")]
)
def test_a_duration_is_written_for_people(seconds: float, written: object) -> None:
    assert write_duration(Seconds(seconds)) == written


@pytest.mark.parametrize(
    ("size", "written"),
    [
        (1 << 40, "1TiB"),
        (3 << 30, "3GiB"),
        (64 << 20, "64MiB"),
        (1536, 1536),
        (2048, "2KiB"),
        (0, 0),
    ],
)
def test_a_size_is_written_in_its_largest_whole_unit(size: int, written: object) -> None:
    assert write_size(Bytes(size)) == written


@given(st.integers(0, 2**63 - 1))
def test_what_is_written_reads_back_as_the_same_size(size: int) -> None:
    assert read_size(write_size(Bytes(size))) == size


@given(st.floats(0, 2**62) | st.integers(0, 2**62).map(float))
def test_what_is_written_reads_back_as_the_same_duration(seconds: float) -> None:
    assert read_duration(write_duration(Seconds(seconds))) == seconds


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 MiB"),
        (335_616, "0.3 MiB"),
        (64 << 20, "64 MiB"),
        (999 << 20, "999 MiB"),
        (5 << 28, "1.2 GiB"),
    ],
)
def test_a_size_is_rounded_for_people(size: int, text: str) -> None:
    assert rounded_size(size) == text

"""A need fits, or the device that is too small for it is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.memory.room import Amounts, in_words, less, shortage

GIB = 1 << 30
amounts = st.dictionaries(st.sampled_from(["host", "CUDA0", "CUDA1"]), st.integers(0, 1 << 40))


@pytest.mark.parametrize(
    ("need", "limits", "device"),
    [
        ({}, {}, ""),
        ({"host": 5}, {"host": 5}, ""),
        ({"host": 6}, {"host": 5}, "host"),
        ({"host": 1, "CUDA0": 6}, {"host": 5, "CUDA0": 5}, "CUDA0"),
        ({"CUDA0": 6}, {"host": 5}, ""),
    ],
    ids=["nothing", "just", "too much", "too much of one", "of a device that nobody knows"],
)
def test_the_device_that_lacks_something_is_named(
    need: Amounts, limits: Amounts, device: str
) -> None:
    assert shortage(need, limits) == device


@given(need=amounts, limits=amounts)
def test_what_is_short_is_short_and_the_rest_is_not(need: Amounts, limits: Amounts) -> None:
    device = shortage(need, limits)
    if device:
        assert need[device] > limits[device]
    else:
        assert all(size <= limits[name] for name, size in need.items() if name in limits)


@given(limits=amounts, reserve=st.integers(0, 1 << 40))
def test_the_reserve_is_left_on_every_device(limits: Amounts, reserve: int) -> None:
    left = less(limits, reserve)
    assert left.keys() == limits.keys()
    assert all(left[name] == max(0, limits[name] - reserve) for name in limits)


def test_a_shortage_is_told_in_gibibytes() -> None:
    limits = {"host": 8 * GIB, "CUDA0": GIB // 2}
    need = {"host": 20 * GIB, "CUDA0": GIB}
    assert in_words(need, limits, "host") == "20.0 GiB, 8.0 GiB"
    assert in_words(need, limits, "CUDA0") == "1.0 GiB on CUDA0, 0.5 GiB"

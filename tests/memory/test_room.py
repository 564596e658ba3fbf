"""A need fits, or the device that is too small for it is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.memory.readings import HOST
from llamasup.memory.room import (
    Amounts,
    in_words,
    limit,
    shortage,
    spread,
    union,
    with_unions,
)

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


def test_a_shortage_is_told_in_gibibytes() -> None:
    limits = {"host": 8 * GIB, "CUDA0": GIB // 2}
    need = {"host": 20 * GIB, "CUDA0": GIB}
    assert in_words(need, limits, "host") == "20.0 GiB, 8.0 GiB"
    assert in_words(need, limits, "CUDA0") == "1.0 GiB on CUDA0, 0.5 GiB"


# --- several devices together ---


def test_a_union_has_room_for_what_its_members_have_together() -> None:
    limits = {"CUDA0": 4, "CUDA1": 8}
    both = union(["CUDA0", "CUDA1"])
    assert both == "CUDA0+CUDA1"
    assert limit(limits, both) == 12
    assert shortage({both: 12}, limits) == ""
    assert shortage({both: 13}, limits) == both
    assert limit(limits, union(["CUDA0", "nobody"])) is None


def test_one_device_is_no_union_nor_are_several_of_one_budget() -> None:
    assert union(["CUDA0"]) == union(["CUDA0", "CUDA0"]) == "CUDA0"
    assert union([]) == ""


def test_what_is_too_much_for_all_together_is_said_of_all_together() -> None:
    limits = {"CUDA0": GIB, "CUDA1": 2 * GIB}
    assert in_words({"CUDA0+CUDA1": 5 * GIB}, limits, "CUDA0+CUDA1") == (
        "5.0 GiB on CUDA0+CUDA1, 3.0 GiB"
    )


@pytest.mark.parametrize(
    ("free", "placed"),
    [
        ({"CUDA0": 6, "CUDA1": 2}, {HOST: 1, "CUDA0": 3, "CUDA1": 1}),
        ({"CUDA0": 0, "CUDA1": 8}, {HOST: 1, "CUDA0": 0, "CUDA1": 4}),
        # Where nothing is free, a need is a need all the same.
        ({"CUDA0": 0, "CUDA1": 0}, {HOST: 1, "CUDA0": 2, "CUDA1": 2}),
    ],
)
def test_a_need_is_spread_in_proportion_to_what_is_free(
    free: Amounts, placed: dict[str, int]
) -> None:
    assert spread({HOST: 1, "CUDA0+CUDA1": 4}, free, {"CUDA0": 8, "CUDA1": 8}) == placed


def test_what_is_held_of_a_member_is_held_of_the_union() -> None:
    unions = ["CUDA0+CUDA1", "CUDA1+CUDA2"]
    assert with_unions({"CUDA0": 3, HOST: 1}, unions) == {
        "CUDA0": 3,
        HOST: 1,
        "CUDA0+CUDA1": 3,
        "CUDA1+CUDA2": 0,
    }
    # What is of both is of one of them by half.
    assert with_unions({"CUDA0+CUDA1": 8}, unions) == {"CUDA0+CUDA1": 8, "CUDA1+CUDA2": 4}


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 99), min_size=3), st.integers(0, 300))
def test_what_fits_the_union_fits_its_members_when_it_is_spread(free: Amounts, need: int) -> None:
    together = union(free)
    if not shortage({together: need}, free):
        placed = spread({together: need}, free, {})
        assert all(size <= free[device] for device, size in placed.items())
        assert need - 3 < sum(placed.values()) <= need

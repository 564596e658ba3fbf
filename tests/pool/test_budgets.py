"""Budgets: what others hold is theirs, a reserve is nobody's, and the rest is for models."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.memory.readings import HOST, Device, Kind
from llamasup.pool.budgets import budgets, host_is_measured, reserve_of, taken_by_others

GIB = 1 << 30


def host(total: int, free: int) -> Device:
    return Device(HOST, Kind.HOST, total * GIB, free * GIB)


def gpu(total: int, free: int, *, unified: bool = False) -> Device:
    return Device("CUDA0", Kind.NVIDIA, total * GIB, free * GIB, unified=unified)


def test_what_children_hold_is_still_theirs_to_have() -> None:
    devices = [host(64, 40), gpu(24, 4)]
    taken = taken_by_others(devices, {HOST: 30 * GIB, "CUDA0": 18 * GIB}, 16 * GIB)
    assert taken == {HOST: 8 * GIB, "CUDA0": 2 * GIB}
    assert budgets(devices, taken, 1 * GIB) == {HOST: 55 * GIB, "CUDA0": 21 * GIB}


def test_files_that_are_mapped_count_as_free_and_their_models_need_as_taken() -> None:
    """A model of 30 GiB that is read from its file leaves the budget as it was."""
    before, after = [host(64, 60)], [host(64, 60)]
    assert taken_by_others(before, {}, 0) == taken_by_others(after, {HOST: 30 * GIB}, 0)


def test_a_child_that_holds_less_than_its_need_makes_no_amount_negative() -> None:
    assert taken_by_others([gpu(24, 20)], {"CUDA0": 18 * GIB}, 0) == {"CUDA0": 0}


def test_what_is_placed_in_unified_memory_is_the_hosts() -> None:
    devices = [host(64, 64), gpu(0, 0, unified=True)]
    assert taken_by_others(devices, {}, 0) == {HOST: 0}
    assert set(budgets(devices, {HOST: 0}, "auto")) == {HOST}


@pytest.mark.parametrize(
    ("total", "wished", "reserve"),
    [(64, "auto", GIB), (5, "auto", GIB // 2), (5, 2 * GIB, 2 * GIB), (64, 0, 0)],
)
def test_the_reserve_is_what_was_asked_for_or_a_tenth_and_never_much(
    total: int, wished: int | Literal["auto"], reserve: int
) -> None:
    assert reserve_of(host(total, total), wished) == reserve


@given(st.integers(0, 64), st.integers(0, 64), st.integers(0, 64), st.integers(0, 99))
def test_a_budget_is_never_negative_and_never_more_than_there_is(
    total: int, free: int, held: int, reserve: int
) -> None:
    devices = [host(total, min(free, total))]
    taken = taken_by_others(devices, {}, held * GIB)
    assert 0 <= budgets(devices, taken, reserve * GIB)[HOST] <= total * GIB


def test_of_a_gpu_that_has_come_back_only_what_is_free_is_there() -> None:
    assert budgets([gpu(24, 20)], {HOST: 0}, GIB) == {"CUDA0": 19 * GIB}


def test_what_children_hold_in_unified_memory_is_not_held_by_others_too() -> None:
    """A child's process holds nearly nothing itself, and its GPU 40 GiB of the host's memory."""
    devices = [host(64, 20), gpu(64, 20, unified=True)]
    assert not host_is_measured(devices)
    assert taken_by_others(devices, {HOST: 40 * GIB}, GIB) == {HOST: 4 * GIB}


def test_on_a_mac_which_does_not_tell_what_a_process_holds_children_hold_what_they_need() -> None:
    mac = [Device(HOST, Kind.APPLE, 24 * GIB, 9 * GIB)]
    assert taken_by_others(mac, {HOST: 14 * GIB}, 0) == {HOST: GIB}
    assert host_is_measured([host(64, 20), gpu(24, 20)])


def test_an_rpc_server_is_a_budget_under_its_address() -> None:
    remote = Device("RPC0", Kind.OTHER, 24 * GIB, 20 * GIB, "h:1", place="h:1")
    taken = taken_by_others([remote], {"h:1": 3 * GIB}, 0)
    assert taken == {"h:1": GIB}
    assert budgets([remote], taken, GIB) == {"h:1": 22 * GIB}

"""Admission: who loads, who goes, who waits and who is refused, as tables and as properties."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import combinations
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamasup.pool import admission
from llamasup.pool.admission import (
    Claim,
    Decision,
    Drain,
    Evict,
    Group,
    Load,
    Refuse,
    Resident,
    State,
    Wait,
    World,
    decide,
    dispensable,
    forecast,
    refusal,
    surplus,
    unload_times,
)

GIB = 2**30
NOW = 1000.0
PATIENCE = 30.0


def resident(model: str, host: int = 4, **more: Any) -> Resident:
    """Idle for a hundred seconds, unless it is said otherwise."""
    facts: dict[str, Any] = {"last_used": NOW - 100, "load_seconds": 1.0, **more}
    return Resident(model, facts.pop("need", {"host": host * GIB}), **facts)


def busy(model: str, host: int = 4, **more: Any) -> Resident:
    return resident(model, host, in_flight=1, **more)


def claim(model: str, host: int = 4, since: float = NOW, **more: Any) -> Claim:
    return Claim(model, more.pop("need", {"host": host * GIB}), since, **more)


def world(residents: list[Resident], claims: list[Claim], host: int = 10, **more: Any) -> World:
    return World(
        {r.model: r for r in residents},
        claims,
        more.pop("budgets", {"host": host * GIB}),
        patience=PATIENCE,
        **more,
    )


def one(residents: list[Resident], wanted: Claim, **more: Any) -> Decision:
    """The decision about a lone claim."""
    return decide(world(residents, [wanted], **more), NOW)[wanted.model]


# One claim


def test_a_model_that_fits_beside_the_others_is_loaded() -> None:
    assert one([busy("a")], claim("b", 6)) == Load()


def test_a_model_that_does_not_fit_takes_the_place_of_an_idle_one() -> None:
    assert one([resident("a")], claim("b", 7)) == Evict(("a",))


def test_no_model_is_unloaded_in_vain() -> None:
    others = [resident("a", 2), resident("b", 4), busy("c", 4)]
    assert one(others, claim("d", 4)) == Evict(("b",))


def test_of_equal_models_the_one_that_was_not_used_for_longest_goes() -> None:
    others = [resident("a", last_used=NOW - 5), resident("b", last_used=NOW - 50)]
    assert one(others, claim("c")) == Evict(("b",))


def test_a_model_that_loads_slowly_stays_although_another_was_used_later() -> None:
    slow = resident("slow", last_used=NOW - 60, load_seconds=90.0)
    quick = resident("quick", last_used=NOW - 30, load_seconds=1.0)
    assert one([slow, quick], claim("c")) == Evict(("quick",))


def test_two_cheap_victims_go_before_one_dear_one() -> None:
    dear = resident("dear", 4, load_seconds=60.0)
    assert one([dear, resident("a", 2), resident("b", 2)], claim("c", 6)) == Evict(("a", "b"))


def test_one_dear_victim_goes_before_two_that_are_dearer_together() -> None:
    whole = resident("whole", 6, load_seconds=25.0)
    halves = [resident("a", 3, load_seconds=10.0), resident("b", 3, load_seconds=20.0)]
    assert one([*halves, whole], claim("c", 6), host=12) == Evict(("whole",))


def test_of_many_that_are_alike_the_cheapest_go() -> None:
    others = [resident(f"m{i:02}", 1, load_seconds=10.0 + i) for i in range(12)]
    assert one(others, claim("c", 6), host=12) == Evict(tuple(f"m0{i}" for i in range(6)))


@pytest.mark.parametrize("state", [State.LOADING, State.STOPPING])
def test_a_model_that_is_loading_or_stopping_is_no_victim(state: State) -> None:
    assert one([resident("a", state=state)], claim("b", 7)) == Wait()


def test_the_memory_of_a_stopping_model_is_not_there_before_it_is_back() -> None:
    stopping = resident("a", state=State.STOPPING)
    assert one([stopping, resident("b", 2)], claim("c", 6)) == Wait()
    assert one([resident("b", 2)], claim("c", 6)) == Load()


def test_a_model_that_loads_already_is_not_loaded_twice() -> None:
    assert one([resident("a", state=State.LOADING)], claim("a")) == Wait()


def test_a_model_that_stops_is_loaded_again_only_after_that() -> None:
    assert one([resident("a", 1, state=State.STOPPING)], claim("a", 1)) == Wait(NOW + PATIENCE)


def test_max_loaded_models_counts_them_whatever_they_weigh() -> None:
    assert one([resident("a", 0)], claim("b", 0), max_loaded=1) == Evict(("a",))
    assert one([resident("a", 0)], claim("b", 0), max_loaded=2) == Load()
    assert one([resident("a", 0)], claim("b", 0), max_loaded=0) == Load()


def test_each_gpu_is_a_budget_of_its_own() -> None:
    budgets = {"CUDA0": 8, "CUDA1": 8}
    left, right = resident("a", need={"CUDA0": 8}), resident("b", need={"CUDA1": 8})
    assert one([left], claim("c", need={"CUDA1": 8}), budgets=budgets) == Load()
    assert one([left, right], claim("c", need={"CUDA1": 8}), budgets=budgets) == Evict(("b",))


def test_a_budget_that_has_shrunk_stops_no_claim_that_needs_nothing_of_it() -> None:
    shrunk = {"CUDA0": 4, "host": 8}
    assert (
        one([busy("a", need={"CUDA0": 6})], claim("b", need={"host": 8}), budgets=shrunk) == Load()
    )


# Turns


def test_a_busy_model_keeps_its_place_for_the_time_of_patience_after_the_claim() -> None:
    a = busy("a", ready_at=0.0)
    assert one([a], claim("b", 7, since=NOW - 10)) == Wait(until=NOW - 10 + PATIENCE)
    assert one([a], claim("b", 7, since=NOW - PATIENCE)) == Drain(("a",))


def test_a_busy_model_keeps_its_place_for_the_time_of_patience_after_its_own_start() -> None:
    wanted = claim("b", 7, since=NOW - 10 * PATIENCE)
    assert one([busy("a", ready_at=NOW - 10)], wanted) == Wait(until=NOW - 10 + PATIENCE)
    assert one([busy("a", ready_at=NOW - PATIENCE)], wanted) == Drain(("a",))


def test_a_drained_model_is_stopped_when_its_answers_have_ended() -> None:
    wanted = claim("b", 7, since=NOW - PATIENCE)
    assert one([busy("a", state=State.DRAINING)], wanted) == Drain(("a",))
    assert one([resident("a", state=State.DRAINING)], wanted) == Evict(("a",))


def test_a_model_that_gets_idle_saves_the_busy_ones() -> None:
    drained, idle = busy("a", state=State.DRAINING), resident("b")
    assert one([drained, idle], claim("c", 6, since=NOW - PATIENCE)) == Evict(("b",))


def test_a_drain_goes_on_although_another_victim_would_be_cheaper_by_now() -> None:
    begun = busy("a", state=State.DRAINING, load_seconds=50.0)
    assert one([begun, busy("b")], claim("c", since=NOW - PATIENCE)) == Drain(("a",))


def test_a_claim_that_waits_for_its_previous_child_is_in_no_other_claims_way() -> None:
    ending = resident("a", host=4, state=State.STOPPING)
    older, younger = claim("a", host=5, since=1.0), claim("b", host=6, since=2.0)

    def decided(now: float, host: int) -> dict[str, Decision]:
        return decide(world([ending], [older, younger], host=host), now)

    assert decided(now=2.0, host=11) == {"a": Wait(until=31.0), "b": Load()}
    # Its place is kept for it, but not for longer than a turn.
    assert decided(now=30.0, host=10) == {"a": Wait(until=31.0), "b": Wait()}
    assert decided(now=31.0, host=10) == {"a": Wait(), "b": Load()}
    # And then it still comes first.
    assert one([resident("b", host=6)], older) == Evict(("b",))


def test_what_loads_gets_its_turn_too() -> None:
    loading = resident("a", state=State.LOADING)
    assert one([loading], claim("b", 7, since=NOW - 100)) == Wait()


def test_an_idle_victim_stays_open_while_another_one_still_answers() -> None:
    long, idle = busy("a", ready_at=0.0), resident("b")
    wanted = claim("c", 9, since=NOW - PATIENCE)
    assert one([long, idle], wanted) == Drain(("b", "a"), still_open=("b",))
    # Also when it is busy again, for as long as the one that was shut first has not ended.
    ending = busy("a", state=State.DRAINING, held_since=NOW - 5)
    again = one([ending, busy("b", ready_at=0.0)], wanted)
    assert isinstance(again, Drain)
    assert again.held == ("a",)
    # And then it is its turn to end, and who has ended stays shut.
    ended = resident("a", state=State.DRAINING, held_since=NOW - 5)
    last = one([ended, busy("b", ready_at=0.0)], wanted)
    assert isinstance(last, Drain)
    assert set(last.held) == {"a", "b"}
    shut = busy("b", state=State.DRAINING, held_since=NOW - 1)
    last = one([ended, shut], wanted)
    assert isinstance(last, Drain)
    assert set(last.held) == {"a", "b"}


def test_of_models_that_were_closed_together_the_one_that_ends_first_opens_again() -> None:
    ended = resident("a", state=State.DRAINING, held_since=NOW - 5)
    ending = busy("b", state=State.DRAINING, held_since=NOW - 5)
    decision = one([ended, ending], claim("c", 9, since=NOW - PATIENCE))
    assert isinstance(decision, Drain)
    assert decision.still_open == ("a",)


def test_an_idle_model_whose_own_clients_have_waited_for_longer_is_not_kept_from_them() -> None:
    shut = resident("a", state=State.DRAINING, ready_at=0.0)
    claims = [claim("a", since=NOW - 60), claim("b", 7, since=NOW - 50)]
    decision = decide(world([shut], claims), NOW)["b"]
    assert isinstance(decision, Drain)
    assert decision.held == ()


# Several claims


def test_loads_that_do_not_compete_run_side_by_side() -> None:
    claims = [claim("a", 4), claim("b", 4)]
    assert decide(world([], claims), NOW) == {"a": Load(), "b": Load()}


def test_a_younger_claim_loads_beside_an_older_one_but_not_out_of_its_memory() -> None:
    a = busy("a", 6)
    older = claim("b", 8, since=NOW - 2)
    small, large = claim("c", 2, since=NOW - 1), claim("c", 3, since=NOW - 1)
    assert decide(world([a], [older, small]), NOW)["c"] == Load()
    assert isinstance(decide(world([a], [older, large]), NOW)["c"], Wait)


def test_two_claims_do_not_share_a_victim() -> None:
    claims = [claim("c", since=NOW - 2), claim("d", since=NOW - 1)]
    cheap, dear = resident("a"), resident("b", load_seconds=9.0)
    assert decide(world([cheap, dear], claims, host=8), NOW) == {
        "c": Evict(("a",)),
        "d": Evict(("b",)),
    }


def test_no_claim_overtakes_an_older_one_on_the_devices_that_it_needs() -> None:
    budgets = {"CUDA0": 8, "CUDA1": 8}
    loads = [claim("a", need={"CUDA0": 8}), claim("b", need={"CUDA0": 8})]
    behind, beside = claim("c", need={"CUDA0": 1}), claim("d", need={"CUDA1": 1})
    decisions = decide(world([], [*loads, behind, beside], budgets=budgets), NOW)
    assert decisions == {"a": Load(), "b": Wait(), "c": Wait(), "d": Load()}


def test_an_idle_model_counts_as_busy_if_its_own_requests_have_waited_longer() -> None:
    awaited = resident("a", state=State.DRAINING)
    claims = [claim("a", since=NOW - 2), claim("b", 7, since=NOW - 1)]
    assert decide(world([awaited], claims), NOW)["b"] == Wait(until=NOW - 1 + PATIENCE)


# Groups


def test_models_of_a_group_that_are_not_to_meet_take_each_others_place() -> None:
    apart = Group(frozenset({"a", "b"}), together=False)
    others = [resident("a", 1), resident("c", 1)]
    assert one(others, claim("b", 1), groups=(apart,)) == Evict(("a",))
    assert one(others, claim("d", 1), groups=(apart,)) == Load()


def test_an_exclusive_group_has_no_other_model_beside_it() -> None:
    alone = Group(frozenset({"a", "b"}), exclusive=True)
    assert one([resident("c", 1), resident("a", 1)], claim("b", 1), groups=(alone,)) == Evict(
        ("c",)
    )
    assert one([resident("a", 1)], claim("c", 1), groups=(alone,)) == Evict(("a",))


def test_a_younger_claim_that_may_not_meet_an_older_one_waits_for_it() -> None:
    apart = Group(frozenset({"a", "b"}), together=False)
    decisions = decide(world([], [claim("a", 1), claim("b", 1)], groups=(apart,)), NOW)
    assert decisions == {"a": Load(), "b": Wait()}


# Refusals


@pytest.mark.parametrize(
    ("residents", "wanted", "more", "refused"),
    [
        (
            [],
            claim("b", 11),
            {},
            Refuse(507, "it needs 11.0 GiB on host, and there is room for 10.0 GiB"),
        ),
        (
            [resident("p", pinned=True)],
            claim("b", 7),
            {},
            Refuse(507, "it needs 7.0 GiB on host, and p will not be unloaded"),
        ),
        (
            [resident("p", 1, pinned=True)],
            claim("b", 1),
            {"max_loaded": 1},
            Refuse(503, "max_loaded_models is 1, and p will not be unloaded"),
        ),
        (
            [resident("p", 1, pinned=True)],
            claim("b", 1),
            {"groups": (Group(frozenset({"p", "b"}), together=False),)},
            Refuse(503, "its groups keep it out: p will not be unloaded"),
        ),
    ],
)
def test_a_model_that_cannot_be_loaded_evicts_no_other(
    residents: list[Resident], wanted: Claim, more: dict[str, Any], refused: Refuse
) -> None:
    there = world([*residents, resident("idle", 1)], [wanted, claim("next", 1)], **more)
    assert decide(there, NOW)["b"] == refused
    assert refusal(there, wanted) == refused


def test_a_pinned_model_that_is_going_does_not_count_as_staying() -> None:
    going = resident("p", 7, pinned=True, state=State.STOPPING)
    assert one([going], claim("b", 7)) == Wait()
    apart = Group(frozenset({"p", "b"}), together=False)
    assert one([going], claim("b", 7), groups=(apart,)) == Wait()
    assert one([going], claim("b", 7), max_loaded=1) == Wait()


def test_what_is_too_large_only_by_a_measurement_is_loaded_alone() -> None:
    measured = claim("b", 15, least={"host": 6 * GIB})
    assert one([], measured) == Load()
    assert one([resident("a", 1)], measured) == Evict(("a",))
    assert one([resident("p", 4, pinned=True)], measured) == Load()
    assert one([resident("p", 4, pinned=True), resident("a", 1)], measured) == Evict(("a",))
    assert one([resident("p", 5, pinned=True)], measured) == Refuse(
        507, "it needs 6.0 GiB on host, and p will not be unloaded"
    )


def test_no_model_is_loaded_beside_one_that_holds_more_than_there_is() -> None:
    assert one([busy("a", 15, ready_at=NOW)], claim("b", 1)) == Wait(until=NOW + PATIENCE)
    assert one([resident("a", 15)], claim("b", 1)) == Evict(("a",))


@pytest.mark.parametrize(("mapped", "hint"), [(1, True), (0.5, False), (0, False)])
def test_a_refusal_names_the_key_that_lets_the_engine_try_where_it_would_help(
    mapped: float, hint: bool
) -> None:
    refused = one([], claim("b", 11, mapped=int(mapped * GIB)))
    assert isinstance(refused, Refuse)
    assert refused.reason.endswith("models.b.overcommit = true the engine may try") is hint


def test_for_a_load_that_ran_out_of_memory_the_idle_go_and_the_cheapest_first() -> None:
    there = [
        resident("dear", load_seconds=60.0),
        resident("cheap"),
        resident("elsewhere", need={"CUDA0": 4}),
        resident("pinned", pinned=True),
        busy("busy"),
        busy("finishing", state=State.STOPPING),
        resident("loading", state=State.LOADING),
        resident("going", state=State.STOPPING),
        resident("new"),
    ]
    assert dispensable(world(there, []), claim("new"), NOW) == ("going", "cheap", "dear")


def test_a_defective_model_evicts_no_other_but_may_be_tried_if_there_is_room() -> None:
    defective = claim("b", defect="invalid magic")
    assert one([resident("a", 9)], defective) == Refuse(503, "invalid magic")
    assert one([resident("a", 1)], defective) == Load()


def test_an_unknown_device_is_no_limit() -> None:
    assert one([], claim("b", need={"CUDA7": GIB})) == Load()


def test_a_refused_claim_is_in_no_other_claims_way() -> None:
    claims = [claim("large", 11), claim("b", 9)]
    assert decide(world([], claims), NOW)["b"] == Load()


def test_a_pinned_model_may_come_back_to_its_own_place() -> None:
    stopping = resident("p", 7, state=State.STOPPING, pinned=True)
    assert one([stopping], claim("p", 7)) == Wait(NOW + PATIENCE)
    assert one([], claim("p", 7)) == Load()


def test_a_pinned_model_is_never_a_victim_but_another_is() -> None:
    assert one([resident("p", 4, pinned=True), resident("a")], claim("b")) == Evict(("a",))


# Idle unload


def test_idle_models_are_unloaded_after_their_own_time_counted_from_the_last_request() -> None:
    residents = [
        resident("a", last_used=100.0, idle_unload=60.0),
        resident("never", last_used=100.0, idle_unload=0.0),
        resident("pinned", last_used=100.0, idle_unload=60.0, pinned=True),
        busy("busy", last_used=100.0, idle_unload=60.0),
        resident("loading", last_used=100.0, idle_unload=60.0, state=State.LOADING),
    ]
    assert unload_times(residents) == {"a": 160.0}


def test_of_more_models_than_there_may_be_the_cheapest_idle_ones_go() -> None:
    there = [
        resident("old", last_used=1.0),
        resident("pinned", last_used=0.0, pinned=True),
        busy("busy"),
        resident("loading", state=State.LOADING),
        resident("stopping", state=State.STOPPING),
        resident("new", last_used=2.0),
    ]
    assert [surplus(world(there, [], max_loaded=most), NOW) for most in (0, 5, 4, 3, 1)] == [
        (),
        (),
        ("old",),
        ("old", "new"),
        ("old", "new"),
    ]


# Properties

sizes = st.integers(0, 6)
idle_residents = st.lists(
    st.tuples(sizes, sizes, st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=6
)


@given(idle_residents, sizes, sizes, st.integers(1, 12))
# nearly all of their sets have to be looked at
@example(
    [(5, 1, 0, 9), (6, 5, 0, 17), (0, 5, 0, 13), (6, 0, 0, 15), (5, 6, 0, 15), (6, 3, 0, 19)],
    5,
    3,
    10,
)
def test_the_victims_are_the_cheapest_that_free_enough(
    facts: list[tuple[int, int, int, int]], host: int, gpu: int, budget: int
) -> None:
    residents = [
        Resident(f"m{i}", {"host": h, "CUDA0": g}, last_used=NOW - unused, load_seconds=load)
        for i, (h, g, unused, load) in enumerate(facts)
    ]
    wanted = claim("new", need={"host": host, "CUDA0": gpu})
    there = world(residents, [wanted], budgets={"host": budget, "CUDA0": budget})

    def suffices(victims: tuple[Resident, ...]) -> bool:
        rest = [r for r in residents if r not in victims]
        return all(
            need == 0 or sum(r.need[device] for r in rest) + need <= budget
            for device, need in wanted.need.items()
        )

    prices = [
        sum(r.price(NOW) for r in victims)
        for size in range(len(residents) + 1)
        for victims in combinations(residents, size)
        if suffices(victims)
    ]
    match decide(there, NOW)["new"]:
        case Load():
            assert suffices(())
        case Evict(names):
            chosen = tuple(r for r in residents if r.model in names)
            assert suffices(chosen)
            assert sum(r.price(NOW) for r in chosen) == pytest.approx(min(prices))
        case refused:
            assert isinstance(refused, Refuse)
            assert max(host, gpu) > budget


@given(st.lists(st.tuples(sizes, sizes, st.integers(0, 60)), min_size=10, max_size=40))
def test_among_many_candidates_no_victim_is_needless(facts: list[tuple[int, int, int]]) -> None:
    residents = {
        f"m{i}": Resident(f"m{i}", {"host": h, "CUDA0": g}, last_used=NOW - 1, load_seconds=load)
        for i, (h, g, load) in enumerate(facts)
    }
    budgets = {d: sum(r.need[d] for r in residents.values()) for d in ("host", "CUDA0")}
    needs = {d: budget * 2 // 3 for d, budget in budgets.items()}
    there = World(residents, [Claim("new", needs, NOW)], budgets)
    decision = decide(there, NOW)["new"]
    if decision != Load():
        assert isinstance(decision, Evict)
        victims = [residents[name] for name in decision.victims]

        def frees(some: list[Resident]) -> bool:
            return all(sum(r.need[d] for r in some) >= need for d, need in needs.items())

        assert frees(victims)
        assert not any(frees([v for v in victims if v is not spared]) for spared in victims)


# Forecasts


@pytest.mark.parametrize(
    ("residents", "outcome"),
    [
        ([resident("a")], Load()),
        ([resident("a", 8)], Evict(("a",))),
        ([busy("a", 8, ready_at=NOW)], Drain(("a",))),
        ([resident("a", 8, state=State.LOADING)], Wait()),
        ([resident("a", 8, state=State.STOPPING)], Wait()),
        ([resident("new", 8), resident("a", 5)], Load()),
    ],
)
def test_a_forecast_waits_for_no_turn_and_counts_nothing_that_is_its_own(
    residents: list[Resident], outcome: Decision
) -> None:
    there = world(residents, [claim("older", 10, since=NOW - 5)])
    assert forecast(there, claim("new", 5), NOW) == outcome


def test_a_forecast_tells_why_not() -> None:
    assert forecast(world([], []), claim("new", 11), NOW) == refusal(
        world([], []), claim("new", 11)
    )


def lines_run_in_admission(call: Callable[[], object]) -> int:
    """Work as it is the same on every machine: the lines of the module that were run."""
    lines = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != admission.__file__:
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("in_flight", [0, 1])
def test_the_work_of_a_decision_grows_no_faster_than_the_number_of_residents(
    in_flight: int,
) -> None:
    def work(number: int) -> float:
        residents = [resident(f"r{i}", 1, in_flight=in_flight) for i in range(number)]
        claims = [claim(f"c{i}", 1) for i in range(200 - number)]
        there = world(residents, claims, host=number, max_loaded=number)
        decided = decide(there, NOW)
        assert len(decided) == number + 1
        return lines_run_in_admission(lambda: decide(there, NOW)) / len(decided)

    assert work(32) / work(8) <= 32 / 8
    assert work(64) / work(32) <= 64 / 32

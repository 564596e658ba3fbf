"""What all plans have in common, whatever answers for the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from llamasup.children.plan import Plan

Planning = Callable[[Mapping[str, object]], Plan]

KINDS: dict[str, dict[str, object]] = {
    "path": {"models.x.path": "/x.gguf"},
    "command": {"models.x.command": ["x", "${PORT}"]},
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, object]:
    return KINDS[request.param]


def test_how_long_it_stays_is_its_own_affair_or_the_pools(
    planning: Planning, kind: dict[str, object]
) -> None:
    assert planning({**kind, "pool.idle_unload": 7}).idle_unload == 7
    assert planning({**kind, "pool.idle_unload": 7, "models.x.idle_unload": 3}).idle_unload == 3


@pytest.mark.parametrize(
    "change",
    [
        {"models.x.aliases": ["y"]},
        {"models.x.description": "new"},
        {"models.x.set_params": {"seed": 1}},
        {"models.x.unloadable": False},
        {"pool.preload": ["x"]},
    ],
    ids=str,
)
def test_how_it_is_offered_makes_no_other_child(
    planning: Planning, kind: dict[str, object], change: dict[str, object]
) -> None:
    assert planning(kind).launches_like(planning({**kind, **change}))


def test_a_plan_of_the_other_kind_makes_another_child(planning: Planning) -> None:
    assert not planning(KINDS["path"]).launches_like(planning(KINDS["command"]))
    assert not planning(KINDS["command"]).launches_like(planning(KINDS["path"]))

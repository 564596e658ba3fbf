"""Chaos in its short form, with a seed that is always the same: `python -m tests.chaos` is longer.

On llama-server where there is one, else on the embedded engine; the campaign on each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.campaign import campaign
from tests.chaos.memory import out_of_memory_while_running
from tests.chaos.mixed import mixed
from tests.chaos.report import Report
from tests.chaos.scenarios import SCENARIOS, swift_recovery
from tests.chaos.stage import Stage
from tests.conftest import ENGINES

SEED = 1
SHORT = SCENARIOS | {
    "swift": partial(swift_recovery, deaths=2),
    "running-oom": partial(out_of_memory_while_running, spares=[1 << 20]),
}
ENGINE = ENGINES.get("llama-server", "embedded")


@pytest.fixture
def stage() -> Iterator[Stage]:
    # Not pytest's own folder: the paths of Unix sockets must be short.
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        yield Stage(ENGINE, SEED, Path(folder), Report())


@pytest.mark.parametrize("scenario", SHORT)
async def test_nothing_is_lost_in_the_scenario_of(scenario: str, stage: Stage) -> None:
    await SHORT[scenario](stage)
    assert stage.report.problems == []
    assert stage.report.faults


async def test_nothing_is_lost_by_signals_at_any_moment(engine: str, stage: Stage) -> None:
    stage = Stage(engine, stage.seed, stage.folder, stage.report)
    await campaign(stage, faults=3)
    assert stage.report.problems == []
    assert stage.report.faults.total() > 3  # and what the weather brought


async def test_mixed_load_leaves_nothing_behind(stage: Stage) -> None:
    await mixed(stage, minutes=0.05)
    assert stage.report.problems == []

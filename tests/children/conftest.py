"""What the tests of this room share: a run folder, and plans for the models of a configuration."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from llamasup.children.launcher import Launcher
from llamasup.children.model_plan import ModelPlan
from llamasup.children.needs import Needs
from llamasup.children.plan import Plan
from llamasup.children.server_plan import ServerPlan
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.config.schema import ModelSettings
from llamasup.learned import State
from llamasup.memory.gauge import Gauge
from llamasup.memory.machine import ThisMachine
from llamasup.processes.run_folder import RunFolder, own_run_folder


@pytest.fixture
def run_folder() -> Iterator[RunFolder]:
    # pytest's own folders have names too long for a socket.
    with (
        tempfile.TemporaryDirectory(prefix="llamasup-test-") as base,
        own_run_folder(Path(base)) as (folder, _),
    ):
        yield folder


@pytest.fixture
def planning(run_folder: RunFolder, tmp_path: Path) -> Callable[[Mapping[str, object]], Plan]:
    """The plan of a configuration's only model. What one learns, the next one knows."""

    def planning(config: Mapping[str, object]) -> Plan:
        whole = load(None, {}, config)
        launcher = Launcher(InEffect(whole), os.environ, run_folder.path, run_folder)
        [(model, settings)] = whole.models.items()
        state = State(tmp_path / "state.json")
        needs = Needs(launcher, state, Gauge(ThisMachine()))
        if isinstance(settings, ModelSettings):
            return ModelPlan(model, settings, whole, launcher, state, needs)
        return ServerPlan(model, settings, whole, launcher.servers, state, needs)

    return planning

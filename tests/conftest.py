"""The engines that there are, and the fixtures that every room's tests share.

The end-to-end tests run on each real engine: the embedded one always, and a llama-server where
LLAMASUP_TEST_LLAMA_SERVER names it or PATH has one. The header of a run says which.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trustme
from hypothesis import settings

from tests.harness import FAKE, Journal, counting_model

LLAMA_SERVER = os.environ.get("LLAMASUP_TEST_LLAMA_SERVER") or shutil.which("llama-server")
ENGINES = {"embedded": "embedded"} | ({"llama-server": LLAMA_SERVER} if LLAMA_SERVER else {})

EMPTY_MODEL = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)
"""A header that says nothing. Engines want more, the fake one does not even look."""

# What an example may take depends on who else is busy, not on us.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_report_header() -> list[str]:
    others = (
        "suites of their own, run if they are named: tests/chaos, clients, containers and devices"
    )
    curl = [] if shutil.which("curl") else ["NOT RUN: the greeting's own command, which needs curl"]
    return [_engines(), others, *curl]


def _engines() -> str:
    if LLAMA_SERVER:
        return f"real engines: embedded, {LLAMA_SERVER}"
    return (
        "real engines: embedded. NOT RUN: the same tests on llama-server, which is neither on"
        " PATH nor named by LLAMASUP_TEST_LLAMA_SERVER"
    )


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """`engine.command` for each real engine."""
    return ENGINES[request.param]


@pytest.fixture(scope="session")
def count_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers " 0 1 2 3 …"."""
    return counting_model(tmp_path_factory.mktemp("models") / "count.gguf")


@pytest.fixture
def counting(engine: str, count_model: Path) -> dict[str, object]:
    """The configuration of a real engine that serves the counting model in two slots."""
    return {
        "engine.command": engine,
        # Two compute threads wait for each other at every token, long on a busy machine.
        "models.count.path": str(count_model),
        "models.count.parallel": 2,
        "models.count.threads": 1,
    }


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who issues certificates that only tests trust."""
    return trustme.CA()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """What the fake engine of this test wrote down."""
    return Journal(tmp_path / "journal")


@pytest.fixture
def faking(tmp_path: Path, journal: Journal) -> Callable[..., Mapping[str, object]]:
    """The configuration of the fake engine, as `faking("--fake-never-ready", parallel=2)`."""

    def fake(*script: str, name: str = "fake", **settings: object) -> Mapping[str, object]:
        model = tmp_path / f"{name}.gguf"
        model.write_bytes(EMPTY_MODEL)
        return {
            "engine.command": FAKE,
            "engine.args": [],
            f"models.{name}.path": str(model),
            f"models.{name}.extra_args": ["--fake-journal", str(journal.path), *script],
            **{f"models.{name}.{key}": value for key, value in settings.items()},
        }

    return fake

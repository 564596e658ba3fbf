"""What was learned survives; a file that cannot be read, or written, does no harm."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from attrs import asdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamasup.memory.ladder import Learned, Rung
from llamasup.state import Footprint, State

LEARNED = Learned(Rung(8192, "q8_0", None), at=1234.5, free=1 << 33)
NOBODY = 2**22 + 1  # above the highest pid that Linux gives
FOOTPRINT = Footprint({"host": 1 << 30, "CUDA0": 1 << 33}, at=1234.5, source="engine")


async def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "state.json"
    await State(file).learn("a model", LEARNED)
    assert State(file).learned("a model") == LEARNED
    assert State(file).learned("another") is None
    assert [path.name for path in file.parent.iterdir()] == ["state.json"]


async def test_what_a_model_took_is_there_after_a_restart_beside_its_rung(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    state = State(file)
    await state.learn("a model", LEARNED)
    await state.note("a model on a rung", FOOTPRINT)
    assert State(file).learned("a model") == LEARNED
    assert State(file).footprint("a model on a rung") == FOOTPRINT
    assert State(file).footprint("a model") is None


async def test_what_the_first_version_knew_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    learned = {"a": {"rung": asdict(LEARNED.rung), "at": LEARNED.at, "free": LEARNED.free}}
    file.write_text(json.dumps({"version": 1, "learned": learned}))
    await State(file).note("b", FOOTPRINT)
    assert State(file).learned("a") == LEARNED
    assert State(file).footprint("b") == FOOTPRINT
    assert json.loads(file.read_text())["version"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


async def test_the_oldest_is_forgotten_before_there_is_too_much(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    known = {
        str(at): {"rung": asdict(LEARNED.rung), "at": float(at), "free": 0} for at in range(256)
    }
    file.write_text(json.dumps({"version": 2, "learned": known, "footprints": {}}))
    state = State(file)
    await state.learn("new", LEARNED)
    assert state.learned("0") is None
    assert state.learned("1") is not None
    assert state.learned("new") == LEARNED


def test_drafts_of_writers_that_died_are_removed_and_others_stay(tmp_path: Path) -> None:
    names = [f"state.part-{pid}" for pid in (NOBODY, os.getpid(), os.getppid(), "x")]
    for name in [*names, f"state.set-aside-{NOBODY}"]:
        (tmp_path / name).touch()
    State(tmp_path / "state.json")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {names[2], names[3], f"state.set-aside-{NOBODY}"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 2, "learned": {}}',
        '{"version": 3, "learned": {}, "footprints": {}}',
        '{"version": 2, "learned": {}, "footprints": {"a": {"amounts": {"host": "much"}}}}',
        '{"version": 1, "learned": {"a": {"rung": 5}}}',
        '{"version": 1, "learned": {"a": {"rung": {}, "at": "never", "free": 1}}}',
        "\x00\xff",
    ],
)
async def test_a_torn_or_foreign_file_is_set_aside_with_a_warning(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(text.encode("latin-1"))
    state = State(file)
    assert "set aside" in caplog.text
    await state.learn("a", LEARNED)
    assert State(file).learned("a") == LEARNED
    (aside,) = tmp_path.glob("*.set-aside-*")
    assert aside.read_bytes() == text.encode("latin-1")


@given(cut=st.integers(0, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_never_stops_a_start(tmp_path: Path, cut: int) -> None:
    whole = json.dumps(
        {
            "version": 2,
            "learned": {
                "a": {
                    "rung": {"context": 1, "cache_type": None, "gpu_layers": None},
                    "at": 1.0,
                    "free": 2,
                }
            },
            "footprints": {},
        }
    )
    file = tmp_path / "state.json"
    file.write_text(whole[:cut])
    assert State(file).learned("a") in (None, Learned(Rung(1), at=1.0, free=2))


async def test_a_place_that_cannot_be_written_costs_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    state = State(tmp_path / "file" / "state.json")
    await state.learn("a", LEARNED)
    assert state.learned("a") == LEARNED
    assert [record.levelno for record in caplog.records if "written" in record.message] == [
        logging.WARNING
    ]

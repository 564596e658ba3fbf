"""What was learned survives; a file that cannot be read, or written, does no harm."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamasup.memory.ladder import Learned, Rung
from llamasup.state import State

LEARNED = Learned(Rung(8192, "q8_0", None), at=1234.5, free=1 << 33)


async def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "state.json"
    await State(file).learn("a model", LEARNED)
    assert State(file).learned("a model") == LEARNED
    assert State(file).learned("another") is None
    assert [path.name for path in file.parent.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 2, "learned": {}}',
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
            "version": 1,
            "learned": {
                "a": {
                    "rung": {"context": 1, "cache_type": None, "gpu_layers": None},
                    "at": 1.0,
                    "free": 2,
                }
            },
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

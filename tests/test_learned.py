"""What was learned survives; a file that cannot be read, or written, does no harm."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from attrs import asdict, evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamasup.learned import Footprint, State
from llamasup.memory.ladder import Learned, Rung

LEARNED = Learned(Rung(8192, "q8_0", None), at=1234.5, free=1 << 33)
NOBODY = 2**22 + 1  # above the highest pid that Linux gives
FOOTPRINT = Footprint({"host": 1 << 30, "CUDA0": 1 << 33}, at=1234.5, source="engine")


async def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "state.json"
    await State(file).learn("a model", LEARNED)
    assert State(file).learned("a model") == LEARNED
    assert State(file).learned("another") is None
    assert {path.name for path in file.parent.iterdir()} == {"state.json", "state.lock"}


async def test_what_a_model_took_is_there_after_a_restart_beside_its_rung(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    state = State(file)
    await state.learn("a model", LEARNED)
    await state.note("a model on a rung", FOOTPRINT)
    assert State(file).learned("a model") == LEARNED
    assert State(file).footprint("a model on a rung", "engine") == FOOTPRINT
    assert State(file).footprint("a model on a rung", "measured") is None
    assert State(file).footprint("a model", "engine") is None


@pytest.mark.parametrize("version", [1, 2])
async def test_what_earlier_versions_knew_is_kept(tmp_path: Path, version: int) -> None:
    file = tmp_path / "state.json"
    learned = {"a": {"rung": asdict(LEARNED.rung), "at": LEARNED.at, "free": LEARNED.free}}
    measured = {"amounts": {"host": 5}, "at": 6.0, "source": "measured"}
    known = {"c": measured, "d": asdict(FOOTPRINT)}
    file.write_text(json.dumps({"version": version, "learned": learned, "footprints": known}))
    await State(file).note("b", FOOTPRINT)
    state = State(file)
    assert state.learned("a") == LEARNED
    assert state.footprint("b", "engine") == FOOTPRINT
    if version == 2:
        assert state.footprint("c", "measured") == Footprint({"host": 5}, 6.0, "measured")
        assert state.footprint("d", "engine") == FOOTPRINT
    assert json.loads(file.read_text())["version"] == 3
    assert {path.name for path in tmp_path.iterdir()} == {"state.json", "state.lock"}


async def test_no_secret_of_an_argument_is_in_the_file_and_no_other_user_may_read_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "state.json"
    known = {"--api-key s3cret": {**asdict(LEARNED)}}
    file.write_text(json.dumps({"version": 2, "learned": known, "footprints": {}}))
    file.chmod(0o644)
    state = State(file)
    await state.learn("--api-key s3cret, too", LEARNED)
    await state.note("--api-key s3cret", FOOTPRINT)
    assert "s3cret" not in file.read_text()
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "state.json": 0o600,
        "state.lock": 0o600,
    }


async def test_two_that_share_a_file_learn_from_each_other_and_the_newer_word_stands(
    tmp_path: Path,
) -> None:
    file = tmp_path / "state.json"
    one, other = State(file), State(file)
    await one.learn("a", LEARNED)
    await one.learn("b", evolve(LEARNED, at=2000.0))
    await other.learn("b", LEARNED)
    await other.note("c", FOOTPRINT)
    for state in (other, State(file)):
        assert state.learned("a") == LEARNED
        assert state.learned("b") == evolve(LEARNED, at=2000.0)
        assert state.footprint("c", "engine") == FOOTPRINT


async def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    states = [State(file) for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(states[number % 4].learn, str(number), LEARNED)
    assert all(State(file).learned(str(number)) == LEARNED for number in range(40))


async def test_a_lock_that_is_never_released_is_waited_for_only_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamasup.learned._LOCK_PATIENCE", 0.05)
    file = tmp_path / "state.json"
    with (tmp_path / "state.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        await State(file).learn("a", LEARNED)
    assert State(file).learned("a") == LEARNED


async def test_a_disk_that_hangs_delays_no_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = threading.Event()
    monkeypatch.setattr("llamasup.learned._write", lambda *_: until.wait(30))
    state = State(tmp_path / "state.json")
    try:
        with trio.fail_after(10), trio.move_on_after(0.05) as patience:
            await state.learn("a", LEARNED)
        assert patience.cancelled_caught
        assert state.learned("a") == LEARNED
    finally:
        until.set()


async def test_a_disk_that_hangs_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = threading.Event()
    monkeypatch.setattr("llamasup.learned._write", lambda *_: until.wait(30))
    monkeypatch.setattr("llamasup.learned._PATIENCE", 0.5)
    state = State(tmp_path / "state.json")
    try:
        await state.learn("a", LEARNED)
        monkeypatch.setattr("llamasup.learned._PATIENCE", 30)
        with trio.fail_after(10):
            await state.learn("b", LEARNED)
        assert state.learned("b") == LEARNED
    finally:
        until.set()


@pytest.mark.parametrize("place", [os.mkfifo, os.mkdir], ids=["a FIFO", "a folder"])
async def test_what_is_no_file_neither_hangs_the_start_nor_is_replaced(
    tmp_path: Path, place: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "state.json"
    place(file)
    kind = file.lstat().st_mode
    with trio.fail_after(10):
        state = State(file)
        await state.learn("a", LEARNED)
    assert state.learned("a") == LEARNED
    assert file.lstat().st_mode == kind
    assert [record.message for record in caplog.records if "cannot be read" in record.message]


async def test_of_a_file_that_is_wrong_in_one_entry_the_others_go_on(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    known = {"a": asdict(LEARNED), "b": {"rung": 5}}
    text = json.dumps({"version": 2, "learned": known, "footprints": {}})
    file.write_text(text)
    for _ in range(2):
        assert State(file).learned("a") == LEARNED
    (aside,) = tmp_path.glob("*.set-aside-*")
    assert aside.read_text() == text


async def test_what_a_clock_of_the_future_wrote_does_not_stand_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    await State(file).learn("a", evolve(LEARNED, at=time.time() + 1e9))
    await State(file).learn("a", LEARNED)
    assert State(file).learned("a") == LEARNED


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
        '{"version": 4, "learned": {}, "footprints": {}}',
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

"""The log flows past whoever does not read it, and shows foreign words as what they are."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup import logs
from llamasup.events import Evicted, Reason
from llamasup.logs import Formatter, JsonFormatter, Outlet, cut, escaped, flowing
from tests.harness import no_threads


class Pipe:
    """A pipe that somebody may read, or not."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        self._outlets: list[Outlet] = []

    def outlet(self) -> Outlet:
        outlet = Outlet(self.into)
        self._outlets.append(outlet)
        return outlet

    def read_to_end(self) -> str:
        os.close(self.into)
        with os.fdopen(self.out, "rb") as out:
            return out.read().decode()

    def close(self) -> None:
        """Nobody writes any more when this returns: the numbers are soon another pipe's."""
        with suppress(OSError):
            os.close(self.out)
        for outlet in self._outlets:
            outlet.close(20)
        with suppress(OSError):
            os.close(self.into)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("x", logging.INFO, "x.py", 1, message, args, exc_info)


# The formatter


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("a\n2026-01-01 ERROR forged", r"a\n2026-01-01 ERROR forged"),
        ("a\rb\x0bc\x85d\u2028e", r"a\rb\x0bc\x85d\u2028e"),
        ("\x1b[2J\x07\x9b1m", r"\x1b[2J\x07\x9b1m"),
        ("x\u202egpj.exe\u200b", r"x\u202egpj.exe\u200b"),
        ("caf\udce9", r"caf\udce9"),
        ("café, 模型, 🦙", "café, 模型, 🦙"),
    ],
    ids=["newline", "line ends", "terminal", "direction", "no text", "letters"],
)
def test_foreign_words_are_shown_and_not_obeyed(foreign: str, shown: str) -> None:
    assert Formatter().format(record("model %s", foreign)).endswith(f" INFO    model {shown}")


@given(st.text())
def test_a_record_is_one_line_of_bounded_length_whatever_it_says(text: str) -> None:
    line = Formatter().format(record("%s", text * 100))
    assert line.isprintable()
    assert line.isascii() or len(escaped(line)) == len(line)
    assert len(line) < logs.LONGEST + 100


def test_what_is_cut_says_so() -> None:
    assert cut("x" * 2005) == "x" * 2000 + "… (5 characters more)"
    assert cut("x" * 2000) == "x" * 2000


def test_a_traceback_can_be_read_and_cannot_be_taken_for_records() -> None:
    try:
        raise ValueError("one\n2026-01-01 00:00:00,000 INFO    all is well\x1b[2J")
    except ValueError as error:
        error.add_note("two\n2026-01-01 00:00:00,000 INFO    all is well")
        lines = Formatter().format(record("it fell", error=error)).split("\n")
    assert lines[0].endswith("INFO    it fell")
    assert lines[1] == "    Traceback (most recent call last):"
    assert "    ValueError: one" in lines
    assert all(line.startswith("    ") and line.isprintable() for line in lines[1:])


def test_the_longest_traceback_is_bounded() -> None:
    def deep(level: int) -> None:
        if not level:
            raise ValueError("y" * 10_000 + "\ny" * 1000)
        deep(level - 1)

    try:
        deep(300)
    except ValueError as error:
        said = Formatter().format(record("it fell", error=error))
    assert "lines more)" in said
    assert len(said.split("\n")) < 100
    assert len(said) < 200_000


# The way out


def test_no_task_waits_for_a_log_that_is_not_read_and_the_gap_is_told(pipe: Pipe) -> None:
    outlet = pipe.outlet()
    for number in range(50_000):
        outlet.say(f"line {number} {'x' * 60}")
    reader = threading.Timer(0.05, lambda: read.append(pipe_read(pipe.out)))
    read: list[str] = []
    reader.start()
    outlet.close(20)
    outlet.say("after")
    outlet.close(20)
    os.close(pipe.into)
    reader.join()
    lines = read[0].splitlines()
    said = [int(line.split()[1]) for line in lines if line.startswith("line")]
    assert said == list(range(len(said)))  # the newest are missing
    missing = re.findall(r"\((\d+) lines are missing here", read[0])
    assert [int(number) for number in missing] == [50_000 - len(said)]
    assert lines[-1] == "after"


def pipe_read(descriptor: int) -> str:
    with os.fdopen(os.dup(descriptor), "rb") as out:
        return out.read().decode()


def test_what_waits_is_bounded(pipe: Pipe) -> None:
    outlet = pipe.outlet()
    for _ in range(1000):
        outlet.say("x" * 100_000)
    assert sum(map(len, outlet._lines)) < logs.MOST_BYTES + 100_000
    for _ in range(10_000):
        outlet.say("x")
    assert len(outlet._lines) <= logs.MOST_LINES + 1


def test_the_end_does_not_wait_for_a_log_that_is_not_read(pipe: Pipe) -> None:
    outlet = pipe.outlet()
    for _ in range(1000):
        outlet.say("x" * 1000)
    outlet.close(0.01)


def test_without_a_thread_all_that_is_read_is_said(pipe: Pipe) -> None:
    with no_threads():
        outlet = pipe.outlet()
        for number in range(3):
            outlet.say(f"line {number}")
        outlet.say("y" * 10_000)
        outlet.close(1)
    assert pipe.read_to_end() == "line 0\nline 1\nline 2\n" + "y" * 10_000 + "\n"


def test_without_a_thread_no_task_waits_either(pipe: Pipe) -> None:
    with no_threads():
        outlet = pipe.outlet()
        for _ in range(1000):
            outlet.say("x" * 1000)
        outlet.close(0.01)


def test_a_thread_that_can_be_had_later_says_what_is_left(pipe: Pipe) -> None:
    outlet = pipe.outlet()
    with no_threads():
        outlet.say("first")
    outlet.say("second")
    outlet.close(20)
    assert pipe.read_to_end() == "first\nsecond\n"


def test_a_reader_that_is_gone_is_no_failure(pipe: Pipe) -> None:
    os.close(pipe.out)
    outlet = pipe.outlet()
    for _ in range(10):
        outlet.say("x")
    outlet.close(20)
    assert not outlet._lines


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.into, False)
    outlet = pipe.outlet()
    for _ in range(200):
        outlet.say("x" * 1000)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe_read(pipe.out)))
    reader.start()
    outlet.close(20)
    os.close(pipe.into)
    reader.join()
    assert read == [("x" * 1000 + "\n") * 200]


def test_records_and_all_that_is_written_to_stderr_go_the_same_way(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_descriptor", lambda: pipe.into)
    root, before = logging.getLogger(), sys.stderr
    monkeypatch.setattr(root, "level", root.level)
    with flowing("info") as say:
        say("hello")
        logging.getLogger("x").info("one\x1b")
        logging.getLogger("x").debug("not this")
        print("two\x1b", file=sys.stderr)
    assert sys.stderr is before
    said = pipe.read_to_end().splitlines()
    assert said[0] == "hello"
    assert said[1].endswith("INFO    one\\x1b")
    assert said[2:] == ["two\\x1b"]


# --- JSON ---


@given(text=st.text())
def test_a_record_in_json_is_one_line_and_says_the_same(text: str) -> None:
    line = JsonFormatter().format(record("model %s", text))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["message"] == cut(f"model {text}")


def test_a_line_in_json_has_what_its_event_says() -> None:
    said = record("words")
    said.event = Evicted("small", Reason.PLACE, "large")
    document = json.loads(JsonFormatter().format(said))
    assert datetime.fromisoformat(document.pop("time")).tzinfo is not None
    assert document == {
        "level": "info",
        "message": "words",
        "event": "Evicted",
        "model": "small",
        "reason": "place",
        "needed_by": "large",
    }


def test_a_mistake_of_ours_in_json_has_its_traceback() -> None:
    said = record("it fell", error=ZeroDivisionError("by design"))
    document = json.loads(JsonFormatter().format(said))
    assert document["traceback"][-1] == "ZeroDivisionError: by design"


def test_the_log_may_become_another_one_while_it_flows(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_descriptor", lambda: pipe.into)
    monkeypatch.setattr(logging.getLogger(), "level", logging.getLogger().level)
    with flowing("warning", "text"):
        logging.getLogger("x").info("too little")
        logs.change("info", "json")
        logging.getLogger("x").info("in JSON")
    (line,) = pipe.read_to_end().splitlines()
    assert json.loads(line)["message"] == "in JSON"


def test_in_json_all_that_is_written_is_json(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_descriptor", lambda: pipe.into)
    monkeypatch.setattr(logging.getLogger(), "level", logging.getLogger().level)
    with flowing("info", "json") as say:
        say("hello,\n  model: a")
        print("a warning of Python's", file=sys.stderr)
    said = [json.loads(line) for line in pipe.read_to_end().splitlines()]
    assert [document["message"] for document in said] == [
        "hello,\n  model: a",
        "a warning of Python's",
    ]


def test_in_json_a_gap_is_told_in_json(pipe: Pipe) -> None:
    outlet = pipe.outlet()
    outlet.aside = JsonFormatter().aside
    for number in range(4 * logs.MOST_LINES):
        outlet.say(JsonFormatter().aside(f"line {number}"))
    reader = threading.Thread(target=lambda: read.append(pipe_read(pipe.out)))
    read: list[str] = []
    reader.start()
    outlet.close(20)
    os.close(pipe.into)
    reader.join()
    messages = [json.loads(line)["message"] for line in read[0].splitlines()]
    assert any("lines are missing here" in message for message in messages)

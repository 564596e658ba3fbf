"""A log is read to its end, whatever is written into it, and whatever goes wrong with it here."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llamasup.children.log import Log
from llamasup.engine.loglines import Event, Line


class Heeded:
    """What was made of a log; it falls once for each `mistake`."""

    def __init__(self, *mistakes: Exception) -> None:
        self.texts: list[str] = []
        self.times = 0
        self._mistakes = list(mistakes)

    def heed(self, events: Sequence[Event]) -> None:
        self.times += 1
        if self._mistakes:
            raise self._mistakes.pop()
        self.texts += [event.text for event in events if isinstance(event, Line)]


def test_lines_are_heard_when_they_are_whole_and_the_last_one_at_the_end() -> None:
    heeded = Heeded()
    log = Log("engine", heeded.heed)
    log.feed(b"one\ntw")
    assert heeded.texts == ["one"]
    log.feed(b"o")
    assert heeded.times == 2  # though no line was whole
    log.feed(b"\nthree")
    log.end()
    assert heeded.texts == ["one", "two", "three"]


def test_a_mistake_of_ours_costs_what_it_met_and_nothing_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heeded = Heeded(ZeroDivisionError("by design"))
    log = Log("engine", heeded.heed)
    log.feed(b"lost\nlost, too")
    log.feed(b"heard\n")
    log.end()
    assert heeded.texts == ["heard"]
    assert "the reader of engine's log fell, and reads on" in caplog.text

"""Tells the log what the journal says: each event becomes a line for people.

The event goes along with its line, so that a log in JSON has its parts (`logs.JsonFormatter`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from llamasup import events
from llamasup.events import By, Event, Reason

log = logging.getLogger(__name__)

_Words = Callable[[Any], str | list[str]]

_REASONS: Final = {
    Reason.PLACE: "{} needs its place",
    Reason.NUMBER: "there are more than max_loaded_models",
    Reason.IDLE: "it has not been used for a while",
}
_CHANGES: Final = {
    By.FILE: "the configuration was loaded again and is in effect",
    By.OPERATOR: "an operator has changed the configuration over HTTP",
}

_LINES: Final[dict[type[Event], tuple[int, _Words]]] = {
    events.Ready: (
        logging.INFO,
        lambda it: f"{it.child} is ready after {it.seconds:.2f} s ({it.rung})",
    ),
    events.SteppedDown: (
        logging.WARNING,
        lambda it: f"{it.model}: out of memory ({it.why}): next rung, {it.rung}",
    ),
    events.MadeRoom: (
        logging.WARNING,
        lambda it: f"{it.model}: out of memory: {', '.join(it.victims)} goes first",
    ),
    events.ChildRetires: (
        logging.INFO,
        lambda it: f"{it.child} goes after its answers: {it.why}",
    ),
    events.ChildGone: (logging.INFO, lambda it: f"{it.child} is gone"),
    events.ChildDied: (logging.WARNING, lambda it: f"{it.child} died: {it.why}"),
    events.DeathsExplained: (
        logging.WARNING,
        lambda it: (
            f"{it.model}: {it.deaths} deaths are laid to a request, which is refused for a while"
        ),
    ),
    events.RanOutOfMemory: (
        logging.WARNING,
        lambda it: f"{it.child} ran out of memory: {it.why}",
    ),
    events.StartFailed: (
        logging.WARNING,
        lambda it: f"{it.model} could not be started and is tried again: {it.why}",
    ),
    events.LoadRefused: (logging.WARNING, lambda it: it.why),
    events.LoadFailed: (logging.ERROR, lambda it: it.why),
    events.Evicted: (
        logging.INFO,
        lambda it: f"{it.model} is unloaded: {_REASONS[it.reason].format(it.sake)}",
    ),
    events.RequestReplayed: (logging.INFO, lambda it: f"{it.method} {it.path} is sent again"),
    events.RequestRefused: (
        logging.INFO,
        lambda it: f"{it.method} {it.path}: {it.status} {it.why}",
    ),
    events.RefusalsUntold: (
        logging.INFO,
        lambda it: f"{it.number} more requests from {it.client} were refused",
    ),
    events.AnswerCut: (
        logging.WARNING,
        lambda it: (
            f"a stream was cut, and ended with an error event: {it.why}"
            if it.told
            else f"an answer was cut: {it.why}"
        ),
    ),
    events.ConfigurationChanged: (logging.INFO, lambda it: _CHANGES[it.by]),
    events.ConfigurationRefused: (
        logging.ERROR,
        lambda it: ["the configuration stays as it was:", *(f"  {x}" for x in it.why.splitlines())],
    ),
}

HEARD: Final = tuple(_LINES)
"""The kinds of events that have a line in the log."""


def narrate(event: Event) -> None:
    """Write the event's line, or its lines; it goes along with the first."""
    level, words = _LINES[type(event)]
    told = words(event)
    # A line break in one line may be a client's, and is escaped by the log.
    first, *others = [told] if isinstance(told, str) else told
    log.log(level, "%s", first, extra={"event": event})
    for line in others:
        log.log(level, "%s", line)

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
    Reason.CLIENT: "its last client does not need it any more",
}
_CHANGES: Final = {
    By.FILE: "the configuration was loaded again and is in effect",
    By.OPERATOR: "an operator has changed the configuration over HTTP",
}

_LINES: Final[dict[type[Event], tuple[int, _Words]]] = {
    events.Ready: (
        logging.INFO,
        lambda event: f"{event.child} is ready after {event.seconds:.2f} s ({event.rung})",
    ),
    events.SteppedDown: (
        logging.WARNING,
        lambda event: f"{event.model}: out of memory ({event.why}): next rung, {event.rung}",
    ),
    events.MadeRoom: (
        logging.WARNING,
        lambda event: f"{event.model}: out of memory: {', '.join(event.victims)} goes first",
    ),
    events.ChildRetires: (
        logging.INFO,
        lambda event: f"{event.child} goes after its answers: {event.why}",
    ),
    events.ChildGone: (logging.INFO, lambda event: f"{event.child} is gone"),
    events.ChildDied: (logging.WARNING, lambda event: f"{event.child} died: {event.why}"),
    events.DeathsExplained: (
        logging.WARNING,
        lambda event: (
            f"{event.model}: {event.deaths} deaths are blamed on one request,"
            " which is refused for a while"
        ),
    ),
    events.RanOutOfMemory: (
        logging.WARNING,
        lambda event: f"{event.child} ran out of memory: {event.why}",
    ),
    events.StartFailed: (
        logging.WARNING,
        lambda event: f"{event.model} could not be started and is tried again: {event.why}",
    ),
    events.LoadRefused: (logging.WARNING, lambda event: event.why),
    events.LoadFailed: (logging.ERROR, lambda event: event.why),
    events.Evicted: (
        logging.INFO,
        lambda event: (
            f"{event.model} is unloaded: {_REASONS[event.reason].format(event.needed_by)}"
        ),
    ),
    events.RequestReplayed: (
        logging.INFO,
        lambda event: f"{event.method} {event.path} is sent again",
    ),
    events.RequestRefused: (
        logging.INFO,
        lambda event: f"{event.method} {event.path}: {event.status} {event.why}",
    ),
    events.MoreRefusals: (
        logging.INFO,
        lambda event: f"{event.number} more requests from {event.client} were refused",
    ),
    events.AnswerCut: (
        logging.WARNING,
        lambda event: (
            f"a stream was cut, and ended with an error event: {event.why}"
            if event.told
            else f"an answer was cut: {event.why}"
        ),
    ),
    events.InstanceChanged: (
        logging.INFO,
        lambda event: (
            f"instance {event.instance} is {event.condition}{event.why and f': {event.why}'}"
        ),
    ),
    events.NameLost: (logging.WARNING, lambda event: f"endpoint {event.endpoint}: {event.why}"),
    events.ConfigurationChanged: (logging.INFO, lambda event: _CHANGES[event.by]),
    events.ConfigurationRefused: (
        logging.ERROR,
        lambda event: [
            "the configuration stays as it was:",
            *(f"  {line}" for line in event.why.splitlines()),
        ],
    ),
    events.CertificateRenewed: (
        logging.INFO,
        lambda event: "the certificate was renewed, and is shown to new connections",
    ),
    events.CertificateRefused: (
        logging.ERROR,
        lambda event: f"the old certificate is still shown: {event.why}",
    ),
}

HEARD: Final = tuple(_LINES)
"""The kinds of events that have a line in the log."""


def narrate(event: Event) -> None:
    """Write the event's line, or its lines; the event itself goes along with the first."""
    level, words = _LINES[type(event)]
    told = words(event)
    # A line break in one line may be a client's, and is escaped by the log.
    first, *others = [told] if isinstance(told, str) else told
    log.log(level, "%s", first, extra={"event": event})
    for line in others:
        log.log(level, "%s", line)

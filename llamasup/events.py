"""What happened, as values, and the journal that hands each to whoever listens. Pure.

The log is the journal's first listener (`narrator`). An event says all that a listener may need to
know, so nobody has to be asked about it later: which model, and whose request by its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from attrs import frozen


@frozen
class Event:
    """Something that happened."""


@frozen
class OfModel(Event):
    """To one model."""

    model: str


@frozen
class OfRequest(Event):
    """To one request."""

    request: str
    """Its id, the client's own if that is sane."""


# Models


@frozen
class LoadBegan(OfModel):
    """A child is started for it."""

    rung: str


@frozen
class LoadProgressed(OfModel):
    """So much of it is loaded (0 to 1), as the engine says."""

    part: float


@frozen
class Ready(OfModel):
    """Its child can be asked."""

    child: str
    seconds: float
    rung: str


@frozen
class SteppedDown(OfModel):
    """Memory ran out, and the next child takes less."""

    why: str
    rung: str


@frozen
class SteppedUp(OfModel):
    """Its child got ready on a higher rung than the one that had held before."""

    rung: str


@frozen
class MadeRoom(OfModel):
    """Memory ran out, and others go before it takes less."""

    victims: tuple[str, ...]


@frozen
class RanOutOfMemory(OfModel):
    """Memory ran out while its child answered a request. The child goes after its answers."""

    child: str
    why: str


@frozen
class ChildRetires(OfModel):
    """Its child admits nobody any more, and goes when its requests have ended."""

    child: str
    why: str


@frozen
class ChildGone(OfModel):
    """Its child has ended as it was told to."""

    child: str


@frozen
class ChildDied(OfModel):
    """Its child has ended, and was not told to."""

    child: str
    why: str


@frozen
class DeathsExplained(OfModel):
    """So many deaths are laid to one request, which is refused for a while."""

    deaths: int


@frozen
class StartFailed(OfModel):
    """Its child could not be started, and the start is tried again."""

    why: str


@frozen
class LoadRefused(OfModel):
    """It is not loaded: there is no place for it in memory."""

    why: str


@frozen
class LoadFailed(OfModel):
    """It could not be loaded."""

    why: str
    given_up: bool
    """It is not tried again before something changes."""


class Reason(Enum):
    """Why an idle model was unloaded."""

    PLACE = "place"
    """Another model needs its place."""

    NUMBER = "number"
    """More models are loaded than may be, since that number was lowered."""

    IDLE = "idle"
    """It has not been used for a while."""


@frozen
class Evicted(OfModel):
    """An idle model is unloaded."""

    reason: Reason
    sake: str = ""
    """The model that needs its place."""


# Requests


@frozen
class RequestCame(OfRequest):
    """Its head and body were read."""

    client: str
    method: str
    path: str


@frozen
class RequestEntered(OfRequest):
    """A child has taken it in, after so many seconds of waiting."""

    model: str
    seconds: float


@frozen
class FirstByte(OfRequest):
    """The client gets the beginning of its answer, so many seconds after the request came."""

    model: str
    seconds: float


@frozen
class RequestReplayed(OfRequest):
    """Its engine was lost before the client had seen a word, and it is sent to the next one."""

    model: str
    method: str
    path: str


@frozen
class RequestRefused(OfRequest):
    """It is answered with an error of ours."""

    client: str
    method: str
    path: str
    status: int
    code: str
    why: str


@frozen
class RefusalsUntold(Event):
    """So many refusals of one client were not told one by one."""

    client: str
    number: int


@frozen
class Usage:
    """What an answer took, as it says itself."""

    prompt_tokens: int
    answer_tokens: int
    """Of several answers to one request, llama-server counts the tokens of one."""

    end_reason: str


@frozen
class RequestEnded(OfRequest):
    """Its answer was given, whole; it may be an error."""

    model: str
    seconds: float
    usage: Usage | None
    """None where the answer does not say so."""


class Phase(Enum):
    """How far a request had come."""

    WAITING = "waiting"
    ANSWERING = "answering"


@frozen
class RequestCancelled(OfRequest):
    """Its client has left, or it was broken off."""

    model: str
    phase: Phase
    seconds: float


@frozen
class AnswerCut(OfRequest):
    """The engine broke off after the client had seen a part. A stream ends with an error event."""

    why: str
    told: bool
    """Could the client be told?"""


# The configuration


class By(Enum):
    """Where a configuration came from."""

    FILE = "file"
    OPERATOR = "operator"


@frozen
class ConfigurationChanged(Event):
    """Another configuration is in effect."""

    by: By


@frozen
class ConfigurationRefused(Event):
    """Another configuration cannot be in effect, and the one before stays."""

    why: str


Listener = Callable[[Any], None]


class Journal:
    """Hands events to their listeners, at once and in order."""

    def __init__(self) -> None:
        self._listeners: dict[type[Event], tuple[Listener, ...]] = {}

    def hears(self, *kinds: type[Event]) -> bool:
        """Does anything listen to events of one of these kinds?

        Asked where it takes work to know them: every request would pay for what nothing hears.
        """
        return not self._listeners.keys().isdisjoint(kinds)

    def tell(self, event: Event) -> None:
        """This happened. Listeners never wait and never raise."""
        for listen in self._listeners.get(type(event), ()):
            listen(event)

    @contextmanager
    def heard_by(self, listener: Listener, *kinds: type[Event]) -> Iterator[None]:
        """Until the end of the block, the listener gets every event of these kinds."""
        for kind in kinds:
            self._listeners[kind] = (*self._listeners.get(kind, ()), listener)
        try:
            yield
        finally:
            for kind in kinds:
                rest = list(self._listeners.pop(kind))
                rest.remove(listener)
                if rest:
                    self._listeners[kind] = tuple(rest)

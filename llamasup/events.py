"""What happened, as values, and the journal that hands each to its listeners. Pure.

The log is the journal's first listener (`narrator`). An event holds all that a listener may need,
such as the model's name and the request's id, so a listener never has to ask for more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from attrs import frozen

from llamasup.states import KeeperState


@frozen
class Event:
    """Something that happened."""


@frozen
class OfModel(Event):
    """Something that happened to one model."""

    model: str


@frozen
class OfRequest(Event):
    """Something that happened to one request."""

    request: str
    """The request's id: the one that the client gave, if that is acceptable."""


# Models


@frozen
class StateChanged(OfModel):
    """The model's keeper is in another state."""

    state: KeeperState


@frozen
class ModelsChanged(Event):
    """There are other models than before."""


@frozen
class LoadBegan(OfModel):
    """A child is started for the model."""

    rung: str


@frozen
class LoadProgressed(OfModel):
    """The engine says that this part of the model is loaded (0 to 1)."""

    part: float


@frozen
class Ready(OfModel):
    """The model's child is ready for requests."""

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
    """The model's child got ready on a higher rung than the one that had held before."""

    rung: str


@frozen
class MadeRoom(OfModel):
    """Memory ran out, and other models are unloaded before this one takes less."""

    victims: tuple[str, ...]


@frozen
class RanOutOfMemory(OfModel):
    """Memory ran out while the child answered a request. The child ends after its answers."""

    child: str
    why: str


@frozen
class ChildRetires(OfModel):
    """The child admits no more requests, and ends when those that it has are done."""

    child: str
    why: str


@frozen
class ChildGone(OfModel):
    """The child has ended, as it was told to."""

    child: str


@frozen
class ChildDied(OfModel):
    """The child has ended without being told to."""

    child: str
    why: str


@frozen
class DeathsExplained(OfModel):
    """One request is held responsible for this many deaths, and is refused for a while."""

    deaths: int


@frozen
class StartFailed(OfModel):
    """The child could not be started, and the start is tried again."""

    why: str


@frozen
class LoadRefused(OfModel):
    """The model is not loaded: there is no place for it in memory."""

    why: str


@frozen
class LoadFailed(OfModel):
    """The model could not be loaded."""

    why: str
    given_up: bool
    """Is the model not tried again until something changes?"""


class Reason(Enum):
    """Why an idle model was unloaded."""

    PLACE = "place"
    """Another model needs its place."""

    NUMBER = "number"
    """The number of models that may be loaded was lowered, and more are loaded."""

    IDLE = "idle"
    """It has not been used for a while."""

    CLIENT = "client"
    """Its last client does not need it any more."""


@frozen
class Evicted(OfModel):
    """An idle model is unloaded."""

    reason: Reason
    needed_by: str = ""
    """The model that needs the place; "" for other reasons."""


# Requests


@frozen
class RequestCame(OfRequest):
    """The request's head and body were read."""

    client: str
    method: str
    path: str


@frozen
class RequestEntered(OfRequest):
    """A child has taken the request in, after `seconds` of waiting."""

    model: str
    seconds: float


@frozen
class FirstByte(OfRequest):
    """The client gets the first part of its answer, `seconds` after the request came."""

    model: str
    seconds: float


@frozen
class RequestReplayed(OfRequest):
    """The engine was lost before the client had seen a word. The request is sent to the next."""

    model: str
    method: str
    path: str


@frozen
class RequestRefused(OfRequest):
    """The request is answered with an error of ours."""

    client: str
    method: str
    path: str
    status: int
    code: str
    why: str


@frozen
class MoreRefusals(Event):
    """More requests of one client were refused, which are only counted: `number` of them."""

    client: str
    number: int


@frozen
class Usage:
    """How many tokens an answer took, and why it ended, as the answer itself says."""

    prompt_tokens: int
    answer_tokens: int
    """If a request has several answers, llama-server counts the tokens of only one."""

    end_reason: str
    cached_tokens: int = 0
    """How many of the prompt's tokens were not computed, because the engine remembered them."""

    @property
    def computed_tokens(self) -> int:
        """How many tokens the engine had to compute."""
        return max(0, self.prompt_tokens - self.cached_tokens) + self.answer_tokens


@frozen
class RequestEnded(OfRequest):
    """Its answer is over: whole, an error, or cut (`AnswerCut` came before, then)."""

    model: str
    seconds: float
    usage: Usage | None
    """None where the answer does not say so."""

    client: str = ""
    """The address that the request came from."""

    key: str = ""
    """The name of the key that it came with, if there are keys."""


class Phase(Enum):
    """How far a request had come."""

    WAITING = "waiting"
    ANSWERING = "answering"


@frozen
class RequestCancelled(OfRequest):
    """The client has left, or the answer was cut, or the request was broken off.

    Of each request that came, either this or `RequestEnded` is told, once.
    """

    model: str
    phase: Phase
    seconds: float
    usage: Usage | None = None
    """What it took at least, roughly; None if no engine had it."""

    client: str = ""
    key: str = ""
    """As in `RequestEnded`."""


@frozen
class AnswerCut(OfRequest):
    """The engine broke off after the client had seen a part. A stream ends with an error event."""

    why: str
    told: bool
    """Did the client get an error event?"""


# Instances elsewhere


@frozen
class InstanceChanged(Event):
    """An instance elsewhere is healthy, loads, refuses or cannot be reached."""

    instance: str
    condition: str
    why: str


@frozen
class NameLost(Event):
    """The name of an endpoint cannot be looked up."""

    endpoint: str
    why: str


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
    """A new configuration could not take effect; the one before stays."""

    why: str


@frozen
class CertificateRenewed(Event):
    """New connections are shown another certificate."""


@frozen
class CertificateRefused(Event):
    """The certificate in the files cannot be used; the one before stays."""

    why: str


Listener = Callable[[Any], None]


class Journal:
    """Hands events to their listeners, at once and in order."""

    def __init__(self) -> None:
        self._listeners: dict[type[Event], tuple[Listener, ...]] = {}
        self.heard = self._listeners.keys()
        """The kinds of events that something listens to, always as they are now.

        Looked at before an event of a request is made: each takes some µs, and most are not heard.
        """

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

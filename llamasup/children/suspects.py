"""Which requests may have ended the engine, and which have done so. Pure: now is an argument.

A request answers for itself; the model and the other requests do not. Each request that was in
flight when a child died is suspected, and is tried alone when it comes again. So is each request
that its client had abandoned shortly before the death: it may still have ended the engine.

A death is sure proof only if the request was alone, or on trial, and if no signal from outside
ended the child. Two deaths convict if the second one is sure; else it takes three, for another
request may be to blame. A convicted request is refused for a while: for a short time at first, for
it may have been bad luck, and for twice as long after each further try that ends a child. The
conviction explains the deaths: other requests are not suspected for them any more, and the deaths
do not use up the replays of the requests that were lost in them.

A client whose requests alone ended the engine twice, each time another request, may be making up
new ones: all that it sends is tried alone, and convicted by one sure death. But behind a proxy many
clients look like one. So the first answer clears it: many clients get one soon.

A trial that the suspect's client does not wait for costs the other requests time and decides
nothing. After three such trials the suspect is let in like all others, until the next death.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Hashable
from typing import Final

from attrs import define, field, frozen

from llamasup.errors import RequestKillsEngine

SUSPICION: Final = 600.0
"""Seconds for which a request that was in flight at a death is suspected."""

SENTENCE: Final = 60.0
"""Seconds of the first refusal; each further one takes twice as long."""

LONGEST_SENTENCE: Final = 6 * 3600.0
MEMORY: Final = 24 * 3600.0
"""Seconds for which a conviction makes the next sentence longer."""

MOST: Final = 256
"""The most requests, and the most clients, that are remembered."""

_ENOUGH = 2
_ENOUGH_OF_DOUBT = 3
_MOST_TRIALS = 3
"""The most trials of one request that end without a result, because the client leaves."""


@frozen
class Accused:
    """A request that was in flight when a child died, or shortly before."""

    digest: bytes
    client: Hashable
    on_trial: bool = False
    """Was it let in alone at that time, to see what it does?"""

    abandoned: bool = False
    """Had its client left without an answer?"""


@define
class _File:
    """What is known of one request."""

    last: float
    deaths: set[int] = field(factory=set)
    """The deaths that it may have caused, and that are not explained yet."""

    kills: int = 0
    """The number of deaths that it is convicted of."""

    sentences: int = 0
    until: float = 0.0
    trials: int = 0
    """Trials without a result since the last death."""


@define
class _Repute:
    """What is known of one client."""

    ended: dict[bytes, float] = field(factory=dict)
    """The requests with which it alone ended the engine, and when."""

    trials: int = 0
    """Trials without a result since then."""


class Suspects:
    """The suspects of one model."""

    def __init__(self) -> None:
        self._files: OrderedDict[bytes, _File] = OrderedDict()
        self._clients: OrderedDict[Hashable, _Repute] = OrderedDict()
        self._explained: deque[int] = deque(maxlen=MOST)
        self.deaths = 0
        """How many deaths there were. This is also the number by which the last one is known."""

    def __bool__(self) -> bool:
        """Is any request or client suspected?"""
        return bool(self._files or self._clients)

    def must_be_alone(self, digest: bytes, client: Hashable, now: float) -> bool:
        """Must the request be tried alone? Raises RequestKillsEngine if it must not be tried at
        all."""
        self._forget(now)
        file = self._files.get(digest)
        if file and now < file.until:
            left = file.until - now
            error = RequestKillsEngine(
                f"this very request has ended the engine {file.kills} times; it is refused, and"
                f" may be tried again in {left:.0f} s"
            )
            error.retry_after = left
            raise error
        suspected = file is not None and file.trials < _MOST_TRIALS
        return suspected or self._is_notorious(client)

    def note_death(
        self, accused: Collection[Accused], in_flight: int, now: float, *, from_outside: bool
    ) -> int:
        """A child died with `in_flight` requests, of which the `accused` could be identified.

        Returns how many deaths, this one included, are explained by a request now; or 0.
        """
        self._forget(now)
        self.deaths += 1
        blamed = _blamed(accused)
        is_alone = len(blamed) == 1 and (blamed[0].on_trial or in_flight <= len(accused))
        is_sure = is_alone and not from_outside
        enough = _ENOUGH if is_sure else _ENOUGH_OF_DOUBT
        convicted = []
        for one in blamed:
            file = self._open(one.digest, now)
            file.deaths.add(self.deaths)
            known = is_sure and (file.sentences or self._is_notorious(one.client))
            if known or len(file.deaths) >= enough:
                convicted.append(file)
            if is_sure:
                self._note_client(one, now)
        return self._explain(convicted, now) if convicted else 0

    def is_explained(self, death: int) -> bool:
        """Is this death blamed on a request? The other requests that were in flight ask this."""
        return death in self._explained

    def acquit(self, digest: bytes, client: Hashable) -> None:
        """The request was tried alone, and was answered."""
        self._files.pop(digest, None)
        self._clients.pop(client, None)

    def note_vain_trial(self, digest: bytes, client: Hashable) -> None:
        """The request was to be tried alone, and its client did not wait for the result."""
        if file := self._files.get(digest):
            file.trials += 1
        if repute := self._clients.get(client):
            repute.trials += 1

    def _explain(self, convicted: list[_File], now: float) -> int:
        explained = set().union(*(file.deaths for file in convicted))
        self._explained += explained
        for file in convicted:
            file.kills += len(file.deaths)
            file.sentences += 1
            file.until = now + min(SENTENCE * 2.0 ** min(file.sentences - 1, 10), LONGEST_SENTENCE)
        for digest, file in list(self._files.items()):
            file.deaths -= explained
            if not file.deaths and not file.sentences:
                del self._files[digest]
        return len(explained)

    def _open(self, digest: bytes, now: float) -> _File:
        file = self._files.setdefault(digest, _File(now))
        file.last = now
        file.trials = 0
        self._files.move_to_end(digest)
        if len(self._files) > MOST:
            self._files.popitem(last=False)
        return file

    def _note_client(self, one: Accused, now: float) -> None:
        repute = self._clients.setdefault(one.client, _Repute())
        repute.trials = 0
        ended = repute.ended
        ended[one.digest] = now
        if len(ended) > _ENOUGH:
            del ended[min(ended, key=ended.__getitem__)]
        self._clients.move_to_end(one.client)
        if len(self._clients) > MOST:
            self._clients.popitem(last=False)

    def _is_notorious(self, client: Hashable) -> bool:
        repute = self._clients.get(client)
        if repute is None or repute.trials >= _MOST_TRIALS:
            return False
        return len(repute.ended) >= _ENOUGH

    def _forget(self, now: float) -> None:
        """Forget what is too long ago."""
        for digest, file in list(self._files.items()):
            if now >= max(file.last + SUSPICION, file.until + MEMORY * bool(file.sentences)):
                del self._files[digest]
        for client, repute in list(self._clients.items()):
            for digest, at in list(repute.ended.items()):
                if now >= at + SUSPICION:
                    del repute.ended[digest]
            if not repute.ended:
                del self._clients[client]


def _blamed(accused: Collection[Accused]) -> list[Accused]:
    """The requests to blame, each once. A death in a trial is blamed on the request on trial. But
    if a client had abandoned another request shortly before, that one may have caused it."""
    on_trial = [one for one in accused if one.on_trial]
    if not on_trial or any(one.abandoned for one in accused):
        on_trial = list(accused)
    return list({one.digest: one for one in on_trial}.values())

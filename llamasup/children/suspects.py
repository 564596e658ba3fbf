"""Which requests may have ended the engine, and which have done so. Pure: now is an argument.

A request answers for itself, not the model, nor the others. Whatever was in flight when a child
died is suspected, and whoever tries it again tries it alone. What died so twice is convicted: it
is refused for a while, for twice as long each time that it is tried again in vain.

A death during a trial is laid to the one on trial. With its conviction the deaths are explained:
who was suspected for them only is so no more.

A client that alone ended the engine twice, with different requests, may be making up a new one
each time. For a while all that it sends is tried alone, and convicted by one death.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Final

from attrs import define, field, frozen

from llamasup.errors import RequestKillsEngine

SUSPICION: Final = 600.0
"""For so many seconds it counts that something was in flight at a death."""

SENTENCE: Final = 600.0
LONGEST_SENTENCE: Final = 6 * 3600.0
MEMORY: Final = 24 * 3600.0
"""For so long, a conviction makes the next one harder."""

MOST: Final = 256
"""Requests, and clients, that are remembered."""

_ENOUGH = 2


@frozen
class Accused:
    """A request that was in flight when a child died."""

    digest: bytes
    client: Hashable
    alone: bool
    """Nobody else was let in beside it, to see what it does."""


@define
class _File:
    """What is known of one request."""

    last: float
    deaths: set[int] = field(factory=set)
    """Those that it may have caused, and nobody is convicted of."""

    kills: int = 0
    """Those that it is convicted of."""

    sentences: int = 0
    until: float = 0.0


class Suspects:
    """Those of one model."""

    def __init__(self) -> None:
        self._files: OrderedDict[bytes, _File] = OrderedDict()
        self._clients: OrderedDict[Hashable, dict[bytes, float]] = OrderedDict()
        """What each client alone ended the engine with, and when."""

        self._deaths = 0

    def __bool__(self) -> bool:
        """Is anybody suspected at all?"""
        return bool(self._files or self._clients)

    def must_be_alone(self, digest: bytes, client: Hashable, now: float) -> bool:
        """Is it to be tried alone? Raises RequestKillsEngine if it is not to be tried at all."""
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
        return file is not None or self._is_notorious(client)

    def note_death(self, accused: Collection[Accused], in_flight: int, now: float) -> int:
        """A child died with so many requests in flight, of which these could be told.

        How many deaths are explained now, this one among them, and are not the model's; or 0.
        """
        self._forget(now)
        self._deaths += 1
        on_trial = [one for one in accused if one.alone]
        if in_flight == 1 or on_trial:
            for one in on_trial or accused:
                self._note_client(one, now)
        convicted = []
        for one in {one.digest: one for one in on_trial or accused}.values():
            file = self._open(one.digest, now)
            file.deaths.add(self._deaths)
            known = file.sentences or (one.alone and self._is_notorious(one.client))
            if known or len(file.deaths) >= _ENOUGH:
                convicted.append(file)
        return self._explain(convicted, now) if convicted else 0

    def acquit(self, digest: bytes) -> None:
        """It was tried alone, and was answered."""
        self._files.pop(digest, None)

    def _explain(self, convicted: list[_File], now: float) -> int:
        explained = set().union(*(file.deaths for file in convicted))
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
        self._files.move_to_end(digest)
        if len(self._files) > MOST:
            self._files.popitem(last=False)
        return file

    def _note_client(self, one: Accused, now: float) -> None:
        ended = self._clients.setdefault(one.client, {})
        ended[one.digest] = now
        if len(ended) > _ENOUGH:
            del ended[min(ended, key=ended.__getitem__)]
        self._clients.move_to_end(one.client)
        if len(self._clients) > MOST:
            self._clients.popitem(last=False)

    def _is_notorious(self, client: Hashable) -> bool:
        return len(self._clients.get(client, ())) >= _ENOUGH

    def _forget(self, now: float) -> None:
        """What is too long ago. It is called only while there is something to forget."""
        for digest, file in list(self._files.items()):
            if now >= max(file.last + SUSPICION, file.until + MEMORY * bool(file.sentences)):
                del self._files[digest]
        for client, ended in list(self._clients.items()):
            for digest, at in list(ended.items()):
                if now >= at + SUSPICION:
                    del ended[digest]
            if not ended:
                del self._clients[client]

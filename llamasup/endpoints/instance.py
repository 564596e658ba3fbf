"""One instance elsewhere: where it is, how well, which models it has, and its room for requests."""

from __future__ import annotations

import errno
import math
import random
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio
from attrs import evolve

from llamasup.config.addresses import Address, UnixAddress
from llamasup.config.schema import EndpointSettings
from llamasup.config.urls import Url, parse_url
from llamasup.endpoints.answers import Offer
from llamasup.endpoints.balance import Candidate, Where
from llamasup.endpoints.health import Health
from llamasup.http.wire import Wire, dial, dial_tls
from llamasup.upstream import Signature

_UNTOLD: Final = 8
"""How many requests a server gets at once that does not tell its slots."""


class Instance:
    """A server at one address. Requests that it has keep it, even when nothing else does."""

    def __init__(
        self,
        name: str,
        settings: EndpointSettings,
        addresses: Sequence[Address],
        on_change: Callable[[Instance, bool], None] = lambda _instance, _is_news: None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`on_change` is called when it may have more or less room, with whether its condition is
        another one. A URL with https needs `trust`."""
        self.name = name
        self.settings = settings
        self.url: Url = parse_url(settings.url)
        self.addresses = tuple(addresses)
        self.health = Health()
        self.offers: Mapping[str, Offer] = {}
        """Its models, by the names that they have here. They stay known while it is away."""

        self._others: Mapping[str, int] = {}
        """How many slots of these models are taken by requests that are not ours."""

        self.was_known = False
        """Has it ever said which models it has?"""

        self.slots: int | None = None
        """The slots of the whole instance, if it tells them."""

        self.ignores_names = False
        """Has it one model only, whatever a request's body says?"""

        self.llamasup = ""
        """The name that it gives itself, if it is a llamasup."""

        self.version = 0
        """Of what that llamasup offers."""

        self._on_change = on_change
        self._trust = trust
        self._signatures: dict[str, Signature] = {}
        self.in_flight = 0
        self._in_flight_for: Counter[str] = Counter()
        self._most_in_flight: Counter[str] = Counter()
        """The same number at its highest, since `offers` were told last."""

        self.last_served = -math.inf
        self.nap = trio.CancelScope()
        """Cancelled when it should be asked at once how it is."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What every request to it says besides what the client says."""
        key = [("Authorization", f"Bearer {self.settings.key}")] if self.settings.key else []
        return [*key, *self.settings.headers.items()]

    def tells(self, offers: Mapping[str, Offer]) -> None:
        """These are its models now.

        What is taken there is in part taken by us, and was counted some time ago: so our requests
        count as they are now, and all that we had since the last time is taken off. If that leaves
        too little for others, requests wait there for a moment; if it left too much, a model would
        be loaded elsewhere for nothing.
        """
        self._others = {
            model: max(0, offer.taken - self._most_in_flight[model])
            for model, offer in offers.items()
            if offer.taken
        }
        self._most_in_flight = self._in_flight_for.copy()
        self.offers = offers

    def lost(self, model: str) -> None:
        """It does not have the model as it told. Until it tells more, none is sent there for it."""
        if offer := self.offers.get(model):
            self.offers = {**self.offers, model: evolve(offer, where=Where.CANNOT)}
        self.ask_again()

    async def connect(self) -> Wire:
        """A connection to the first of its addresses that accepts one. Raises OSError.

        If this is cancelled, it leaves nothing open.
        """
        failure: OSError = ConnectionRefusedError(errno.ECONNREFUSED, "it has no address")
        for address in self.addresses:
            try:
                with trio.move_on_after(self.settings.connect_timeout):
                    return await self._dial(address)
                failure = TimeoutError(errno.ETIMEDOUT, "no connection in time")
            except OSError as error:
                failure = error
        raise failure

    async def _dial(self, address: Address) -> Wire:
        if self._trust is None or isinstance(address, UnixAddress):
            return await dial(address)
        return await dial_tls(address, self.url.host, self._trust)

    def signature(self, model: str) -> Signature:
        """What answers from there say of who has answered."""
        if model not in self._signatures:
            self._signatures[model] = Signature.of(model, self.name)
        return self._signatures[model]

    def enter(self, model: str) -> None:
        """A request for this model is sent there."""
        self.in_flight += 1
        self._in_flight_for[model] += 1
        most = max(self._most_in_flight[model], self._in_flight_for[model])
        self._most_in_flight[model] = most

    def leave(self, model: str) -> None:
        """The request is done."""
        self.in_flight -= 1
        self._in_flight_for[model] -= 1
        if not self._in_flight_for[model]:
            del self._in_flight_for[model]
        self._on_change(self, False)

    def candidate(self, model: str, now: float) -> Candidate:
        """The instance as the balance sees it. It must offer the model."""
        offer, ours = self.offers[model], self._in_flight_for[model]
        most = self.settings.max_in_flight
        if offer.slots is None:
            whole = (self.slots or _UNTOLD) if most == "auto" else most
            room = float(whole - self.in_flight)
        else:
            room = offer.slots - self._others.get(model, 0) - ours
            if most != "auto":
                room = min(room, most - self.in_flight)
        room = min(room, self.health.capacity(now) - self.in_flight)
        where = Where.LOADS if ours and offer.where is not Where.LOADED else offer.where
        return Candidate(self.name, room, self.settings.priority, ours, where, offer.cost)

    def is_usable(self, now: float) -> bool:
        """May requests be sent there, as soon as it has room?"""
        return self.health.capacity(now) > 0

    def served(self) -> None:
        """It has begun to answer a request."""
        now = self.last_served = trio.current_time()
        if self.health.served(now):
            self._on_change(self, True)

    def unreachable(self, why: str) -> None:
        """It took no connection."""
        self._met(self.health.unreachable(why, trio.current_time()))

    def failed(self, why: str) -> None:
        """It gave no answer to a request that it had taken."""
        self._met(self.health.failed(why, trio.current_time(), random.random()))

    def loads(self) -> None:
        """It told a request that it still loads its model."""
        self._met(self.health.loads(trio.current_time(), random.random()))

    def refused(self, why: str) -> None:
        """It does not answer requests of ours."""
        self._met(self.health.refused(why, trio.current_time()))

    def turned_away(self, seconds: float) -> None:
        """It has no room, whatever it told before."""
        self.health.turned_away(seconds, trio.current_time())
        self._met(False)

    def _met(self, is_news: bool) -> None:
        self._on_change(self, is_news)
        self.ask_again()

    def ask_again(self) -> None:
        """Have it asked at once how it is."""
        self.nap.cancel()

    def __str__(self) -> str:
        return self.name

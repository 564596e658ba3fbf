"""How much memory there is at this moment. This may be asked often.

The host's memory is read anew each time, which takes a fraction of a millisecond. The engine says
which devices there are (`memory.listing`). Their vendors' tools say how much is free on them; they
are asked a few times a second at most. For devices that no such tool knows (Vulkan, SYCL, RPC) the
engine itself is asked again, but never for more than a fifth of the time. If a tool or an engine
does not answer, its last answer counts. An RPC server does not answer while it serves a child of
ours.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence, Set

import trio
from attrs import define, field

from llamasup.memory.cards import Card
from llamasup.memory.listing import Listing, is_remote, refined, under_common_names
from llamasup.memory.machine import Machine, cards, host, physical_memory
from llamasup.memory.readings import Device

log = logging.getLogger(__name__)

_OUT_OF_DATE = 0.2
_SILENT = 10.0
_PAUSE_PER_QUESTION = 4
"""After an answer, the engine is not asked again for this many times as long as the answer took."""

_PATIENCE_AGAIN = 2.0

_LASTS = 300.0
"""Seconds after which the engine lists its devices again, even if tools know what is free on all of
them: a GPU that has fallen off the bus is no device any more."""

_MOST_LISTINGS = 16


@define
class _Answer:
    """What the engine answered last, and when."""

    devices: list[Device] | None = None
    since: float = -math.inf
    rests_until: float = -math.inf
    is_old: bool = True
    """Is there a device of which only the engine knows what is free?"""

    now: list[Device] = field(factory=list)
    """The same devices, with what is free on them now."""

    asking: trio.Lock = field(factory=trio.Lock)
    """Held while the engine is asked. It may hang on an RPC server; who asks for other devices does
    not wait for that."""

    def is_due(self, at: float) -> bool:
        if at < self.rests_until:
            return False
        return self.devices is None or self.is_old or at - self.since >= _LASTS


class Gauge:
    """The devices of one machine over time."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.occupied: Set[str] = frozenset()
        """RPC servers that children of ours are connected to."""

        self._answers: OrderedDict[Listing, _Answer] = OrderedDict()
        self._cards: list[Card] = []
        self._asked_cards_at = -math.inf

    async def devices(self) -> list[Device]:
        """The host's memory, if the system tells it, and all devices that were ever listed, but
        only one of those that share a budget."""
        for listing, answer in list(self._answers.items()):
            if answer.devices is not None and not answer.asking.locked():
                await self._bring_up_to_date(listing, answer)
        by_rank = sorted(self._answers.items(), key=lambda item: item[0].owner is None)
        found = {d.identity: d for _, answer in by_rank for d in answer.now}
        return [*await host(self.machine), *found.values()]

    async def listed(self, listing: Listing) -> list[Device] | None:
        """The devices that this engine lists when it is called in this way; None until it answers.

        Its answers under other circumstances (another build, another environment) are forgotten.
        """
        for other in list(self._answers):
            if other.owner == listing.owner and not other.is_of_one_engine_with(listing):
                del self._answers[other]
        answer = self._answers.setdefault(listing, _Answer())
        self._answers.move_to_end(listing)
        while len(self._answers) > _MOST_LISTINGS:
            self._answers.popitem(last=False)
        await self._bring_up_to_date(listing, answer)
        return None if answer.devices is None else answer.now

    def forget(self, servers: Set[str]) -> None:
        """These RPC servers do not answer: do not ask the engine for their devices any more."""
        for listing in list(self._answers):
            if not servers.isdisjoint(listing.servers):
                del self._answers[listing]

    async def _bring_up_to_date(self, listing: Listing, answer: _Answer) -> None:
        async with answer.asking:
            if answer.is_due(trio.current_time()) and self.occupied.isdisjoint(listing.servers):
                await self._ask(listing, answer)
        if answer.devices is None:
            return
        known: list[Card] = []
        if not all(map(is_remote, answer.devices)):
            known = await self._known_cards()
        answer.now, answer.is_old = refined(
            answer.devices, known, listing.environment, await physical_memory(self.machine)
        )
        if listing.owner is not None and (found := self._common()):
            asked, common = found
            answer.now = under_common_names(
                answer.now, listing.environment, common, asked.environment, known
            )

    def _common(self) -> tuple[Listing, Sequence[Device]] | None:
        """What the engine that most models share listed last."""
        for listing, answer in reversed(self._answers.items()):
            if listing.owner is None and answer.devices is not None:
                return listing, answer.now
        return None

    async def _ask(self, listing: Listing, answer: _Answer) -> None:
        begun = trio.current_time()
        said = ""
        # An engine that answered before may hang now, on an RPC server that is gone or busy.
        with trio.move_on_after(math.inf if answer.devices is None else _PATIENCE_AGAIN):
            said = await self.machine.run(*listing.command, environment=listing.environment)
        answer.since = trio.current_time()
        took = answer.since - begun
        answer.rests_until = answer.since + max(_OUT_OF_DATE, _PAUSE_PER_QUESTION * took)
        devices = listing.devices_in(said)
        if devices is not None:
            answer.devices = devices
        else:
            answer.rests_until += _SILENT
        if answer.devices is None:
            log.warning("the engine does not say which devices it has")

    async def _known_cards(self) -> list[Card]:
        if trio.current_time() - self._asked_cards_at >= _OUT_OF_DATE:
            self._cards = await cards(self.machine)
            self._asked_cards_at = trio.current_time()
        return self._cards

"""What all conversations share: the settings, and what can answer."""

from __future__ import annotations

from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Seconds, Server
from llamasup.events import Journal
from llamasup.front.bodies import Bodies
from llamasup.front.doorkeeper import Doorkeeper
from llamasup.front.keepalive import Keepalive
from llamasup.front.refusals import Refusals
from llamasup.front.routes import Router
from llamasup.pool.offers import Offers
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster
from llamasup.upstream import Upstream


class Desk:
    """One object that all conversations share, and read whenever they need it."""

    def __init__(
        self,
        in_effect: InEffect,
        roster: Roster,
        pool: Pool,
        control: Upstream,
        bodies: Bodies,
        journal: Journal,
    ) -> None:
        self._in_effect = in_effect
        self.roster = roster
        self.pool = pool
        self.control = control
        self.bodies = bodies
        self.offers = Offers(pool)
        self.journal = journal
        self.router = Router(self.settings.path_prefixes)
        self.keepalive = _keepalive(self.settings.keepalive_after)
        self.refusals = Refusals()
        self.door = Doorkeeper(in_effect, journal, pool)
        self.closing = False
        """Does every connection end after its current answer?"""

    @property
    def settings(self) -> Server:
        """The configuration of the front."""
        return self._in_effect.config.server

    @property
    def max_replays(self) -> int:
        """How often a request is sent again after its child was lost."""
        return self._in_effect.config.recovery.max_replays

    async def pause(self, seconds: float) -> None:
        """Sleep for so long, or until another configuration is in effect. It may be cancelled."""
        await self._in_effect.pause(seconds)

    def renew(self) -> None:
        """Replace what was made from the old settings. The caller has to run a new keepalive."""
        settings, keepalive = self.settings, self.keepalive
        self.door.renew()
        self.router = Router(settings.path_prefixes)
        self.bodies.memory.resize(settings.max_buffered)
        if settings.keepalive_after != (keepalive.interval if keepalive else 0):
            if keepalive is not None:
                keepalive.dismiss()
            self.keepalive = _keepalive(settings.keepalive_after)


def _keepalive(interval: Seconds) -> Keepalive | None:
    return Keepalive(interval) if interval else None

"""What all conversations share: the settings, and whom to ask."""

from __future__ import annotations

from llamasup.config.schema import Server
from llamasup.events import Journal
from llamasup.front.bodies import Bodies
from llamasup.front.keepalive import Keepalive
from llamasup.front.refusals import Refusals
from llamasup.front.routes import Router
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster
from llamasup.upstream import Upstream


class Desk:
    """The same for all; what changes with the configuration, they read when it matters."""

    def __init__(
        self,
        settings: Server,
        max_replays: int,
        roster: Roster,
        pool: Pool,
        control: Upstream,
        bodies: Bodies,
        journal: Journal,
    ) -> None:
        self.settings = settings
        self.max_replays = max_replays
        self.roster = roster
        self.pool = pool
        self.control = control
        self.bodies = bodies
        self.journal = journal
        self.router = Router(settings.path_prefixes)
        self.keepalive = _keepalive(settings)
        self.refusals = Refusals()
        self.closing = False
        """Every connection ends after the answer that it is at."""

    def adopt(self, settings: Server, max_replays: int) -> None:
        """Go by these from now on. A keepalive that keeps other intervals has to be run."""
        if settings.keepalive_after != self.settings.keepalive_after:
            if self.keepalive is not None:
                self.keepalive.dismiss()
            self.keepalive = _keepalive(settings)
        self.settings = settings
        self.max_replays = max_replays
        self.router = Router(settings.path_prefixes)
        self.bodies.adopt(settings.body_memory)


def _keepalive(settings: Server) -> Keepalive | None:
    return Keepalive(settings.keepalive_after) if settings.keepalive_after else None

"""What a keeper must know of its model, whatever answers for it.

There are two kinds: a `ModelPlan` has a file, for which llama-servers are started, and a
`ServerPlan` has the command line of another server.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from llamasup.children.child import Child
from llamasup.children.needs import Needed
from llamasup.config.schema import AnyModel, Config, Offer
from llamasup.engine.failures import Cause
from llamasup.memory.ladder import Learned, Rung
from llamasup.memory.room import Amounts
from llamasup.models.purpose import Purpose


class Plan(ABC):
    """One model's rungs, and how to launch it on one of them."""

    path: Path | None = None
    """The model's file, if it has one."""

    projector: Path | None = None
    """The file with which it sees or hears, if it has one."""

    program = ""
    """The program that is started for it, if that is no llama-server."""

    is_open = False
    """May llamasup choose how much context the model begins with?"""

    def __init__(
        self,
        model: str,
        settings: AnyModel,
        config: Config,
        known_rungs: Sequence[Rung],
        slots: int,
    ) -> None:
        self.model = model
        self.settings = settings
        self.slots = slots
        """How many requests a child works on at once, until it says itself how many."""

        self.known_rungs = known_rungs
        """What `rungs` returned last; before that, with all contexts, as if the model had no
        limit."""

        self.preloaded = model in config.pool.preload
        """Is it loaded without a request, and again after it died?"""

        own = settings.idle_unload
        self.idle_unload = config.pool.idle_unload if own == "auto" else own

        self.patience = config.recovery.patience
        self.climb_interval = config.ladder.climb_interval
        self._launch = self._launched_by(config), known_rungs

    def launches_like(self, other: Plan) -> bool:
        """Do both plans launch the same children? If not, a child of the other plan is out of
        date."""
        return self._launch == other._launch

    @abstractmethod
    def _launched_by(self, config: Config) -> object:
        """All that decides how a child starts, besides its rung. Equal if nothing of that has
        changed."""

    def _settings_without(self, *unknown: str) -> object:
        """The model's settings without those that its children do not know: those of every offer,
        and these."""
        left_out = _OF_THE_OFFER.union(unknown)
        return attrs.asdict(
            self.settings, recurse=False, filter=lambda field, _: field.name not in left_out
        )

    async def rungs(self) -> Sequence[Rung]:
        """The rungs, best first. To know some of them, the model's file has to be read."""
        return self.known_rungs

    async def trained_context(self) -> int | None:
        """How much context the model was trained on; None if that is not known."""
        return None

    async def file_size(self) -> int:
        """Bytes of the model's file, all parts together; 0 if there is none to read."""
        return 0

    @property
    def missing(self) -> str:
        """What the model has to do without, in words: its RPC servers that did not answer when the
        devices were looked at."""
        return ""

    async def explained(self, cause: Cause) -> Cause:
        """Why a child has ended, with all that is known about it."""
        return cause

    async def look_at_devices(self) -> None:  # noqa: B027 - not every kind can
        """Let the gauge learn which devices would be used for the model. An unusable engine is no
        error here: later questions report it."""

    @abstractmethod
    async def need(self, rung: Rung, free: Amounts | None = None) -> Needed:
        """What a child on `rung` takes. The engine is asked only if `free` is given, and its answer
        can matter when this much is free. Raises EngineUnusable."""

    async def measured(self, rung: Rung, resident: int) -> None:  # noqa: B027 - not every kind can
        """Remember what a child on `rung` took of the host's memory."""

    async def purpose(self) -> Purpose | None:
        """What the model is for; None if only its server can tell."""
        return None

    @abstractmethod
    async def child(self, rung: Rung) -> Child:
        """The next child, not yet started. Raises ModelUnavailable."""

    @abstractmethod
    async def circumstances(self) -> object:
        """A value that changes when it makes sense to try a given-up model again; None if not
        known."""

    async def learned(self) -> Learned | None:
        """The rung that held last time. Raises EngineUnusable."""
        return None

    async def learn(self, learned: Learned) -> None:  # noqa: B027 - not every kind can
        """Remember the rung that held, unless the engine is unusable by now."""


_OF_THE_OFFER: Final = {field.name for field in attrs.fields(Offer)} - {"env"}
"""The settings of an offer that a child does not know: what listings show, what becomes of
requests, and how long it stays."""

"""What follows when a model runs out of memory: first the idle go, then the context.

Each idle model goes once, and the same rung is tried again: one or two models at first, then twice
as many, for each try may take long. If there is none to go, the next rung is tried.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamasup.children.landlord import Landlord, Place, Tenant
from llamasup.children.needs import Needed
from llamasup.children.position import Position
from llamasup.engine.failures import Cause, Kind
from llamasup.events import Journal, MadeRoom, SteppedDown
from llamasup.memory.ladder import Rung
from llamasup.models.glances import one_glance


class Descent:
    """One model's way down its ladder, from one child to the next."""

    def __init__(self, tenant: Tenant, landlord: Landlord, journal: Journal) -> None:
        self.position = Position(tenant.plan)
        self._tenant = tenant
        self._landlord = landlord
        self._journal = journal
        self._needed: Needed | None = None

    def forget(self) -> None:
        """The next child begins at the top again, by the tenant's plan."""
        self.position = Position(self._tenant.plan)

    @property
    def rung(self) -> Rung | None:
        """The rung that its child is on, or was last."""
        return self.position.rung

    async def next_rung(self) -> Rung:
        """The rung for the next child, by the room that there is now. Raises ModelUnavailable."""
        with one_glance():  # its many questions are about one and the same engine and files
            room = await self._landlord.room(self._tenant)
            rung = await self.position.take(room)
            self._needed = await self.position.plan.need(rung, room.free)
        return rung

    async def place(self) -> Place:
        """A place for a child on that rung, waited for. Raises NotAdmitted."""
        assert self._needed is not None  # a rung was taken before
        return await self._landlord.place(self._tenant, self._needed)

    async def eases(self, cause: Cause) -> bool:
        """If a child ran out of memory: can the next one have more, or take less?

        Returns when the memory is there. Cancelled, models that were told to go do so.
        """
        if cause.kind is not Kind.OUT_OF_MEMORY:
            return False
        return await self._gets_room() or self._steps_down(cause)

    def can_go_on(self) -> bool:
        """If a child ran out of memory now: could the next one have more, or take less?"""
        return not self.position.is_last or bool(self._victims())

    def could_get_room(self) -> bool:
        """Is any other model idle, so that it could go?"""
        return bool(self._could_go())

    def is_crowded(self) -> bool:
        """Do other models hold memory that a child would take?"""
        return self._needed is not None and self._landlord.crowds(self._tenant, self._needed)

    async def _gets_room(self) -> bool:
        victims = self._victims()
        if not victims:
            return False
        self._journal.tell(MadeRoom(self._tenant.model, tuple(victims)))
        self.position.made_way.update(victims)
        self.position.stay()
        await self._landlord.make_way(victims)
        return True

    def _victims(self) -> list[str]:
        gone = self.position.made_way
        return [model for model in self._could_go() if model not in gone][: max(len(gone), 1)]

    def _could_go(self) -> Sequence[str]:
        return self._landlord.dispensable(self._tenant, self._needed) if self._needed else ()

    def _steps_down(self, cause: Cause) -> bool:
        crowded = self.is_crowded()
        if not self.position.step_down(cause.words, crowded=crowded, proven=cause.proven):
            return False
        self._journal.tell(SteppedDown(self._tenant.model, cause.words, str(self.rung)))
        return True

"""What follows when a model runs out of memory: idle models are unloaded, then the context shrinks.

Each idle model is unloaded once, and then the same rung is tried again: one or two models at first,
then twice as many, because each try may take long. With no idle model left, the next rung is tried.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamasup.children.landlord import Landlord, Place, Tenant
from llamasup.children.needs import Needed
from llamasup.children.position import Position
from llamasup.engine.failures import Cause, Kind
from llamasup.errors import RemoteUnavailable
from llamasup.events import Journal, MadeRoom, SteppedDown
from llamasup.memory.ladder import Rung
from llamasup.memory.room import shortage
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
        """Forget the way so far: the next child begins at the top again, by the tenant's plan."""
        self.position = Position(self._tenant.plan)

    @property
    def rung(self) -> Rung | None:
        """The rung that the model's child is on, or was last."""
        return self.position.rung

    async def next_rung(self) -> Rung:
        """Choose the next child's rung by the room that there is now. Raises ModelUnavailable, and
        RemoteUnavailable if the model fits only with an RPC server that does not answer."""
        with one_glance():  # it asks many times about the same engine and files
            room = await self._landlord.room(self._tenant)
            rung = await self.position.take(room)
            needed = await self.position.plan.need(rung, room.free)
        missing = self.position.plan.missing
        if missing and shortage(needed.least, room.most):
            raise RemoteUnavailable(f"{missing}, and it does not fit without")
        self._needed = needed
        return rung

    async def place(self) -> Place:
        """Wait for a place for a child on that rung. Raises NotAdmitted."""
        assert self._needed is not None  # `next_rung` was called before
        return await self._landlord.place(self._tenant, self._needed)

    async def prepares_next(self, cause: Cause) -> bool:
        """If a child ran out of memory, make room for the next one, or let it take less.

        Returns whether that was possible, when the memory is there. If this is cancelled, models
        that were told to end still do.
        """
        if cause.kind is not Kind.OUT_OF_MEMORY:
            return False
        return await self._gets_room() or self._steps_down(cause)

    def can_go_on(self) -> bool:
        """If a child ran out of memory now, could the next one have more, or take less?"""
        return not self.position.is_last or bool(self._victims())

    def could_get_room(self) -> bool:
        """Is another model idle, so that it could be unloaded?"""
        return bool(self._could_go())

    def is_crowded(self) -> bool:
        """Do other models hold memory of the devices that a child would use?"""
        return self._needed is not None and self._landlord.crowds(self._tenant, self._needed)

    async def _gets_room(self) -> bool:
        victims = self._victims()
        if not victims:
            return False
        self._journal.tell(MadeRoom(self._tenant.model, tuple(victims)))
        self.position.unloaded.update(victims)
        self.position.stay()
        await self._landlord.unload(victims)
        return True

    def _victims(self) -> list[str]:
        gone = self.position.unloaded
        return [model for model in self._could_go() if model not in gone][: max(len(gone), 1)]

    def _could_go(self) -> Sequence[str]:
        return self._landlord.dispensable(self._tenant, self._needed) if self._needed else ()

    def _steps_down(self, cause: Cause) -> bool:
        crowded = self.is_crowded()
        if not self.position.step_down(cause.words, crowded=crowded, proven=cause.proven):
            return False
        self._journal.tell(SteppedDown(self._tenant.model, cause.words, str(self.rung)))
        return True

"""A landlord whose house is never full."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llamasup.children.child import Child
from llamasup.children.landlord import Tenant
from llamasup.children.needs import Needed
from llamasup.memory.room import Amounts, Room

NOTHING_KNOWN: Amounts = {}


class House:
    """For whoever comes."""

    async def __aenter__(self) -> House:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    def occupy(self, child: Child) -> None:
        pass

    def ready(self) -> None:
        pass


class RoomForAll:
    """Gives a place to everybody at once. How much room there is, nobody knows, or the test."""

    def __init__(self, free: Amounts = NOTHING_KNOWN) -> None:
        self.free = free
        self.idle: list[str] = []
        self.gone: list[str] = []
        self.is_crowded = False

    async def room(self, keeper: Tenant) -> Room:
        await keeper.plan.look_at_devices()
        return Room(self.free, self.free)

    async def place(self, keeper: Tenant, needed: Needed) -> House:
        return House()

    def dispensable(self, keeper: Tenant, needed: Needed) -> Sequence[str]:
        return [model for model in self.idle if model not in self.gone]

    async def unload(self, victims: Collection[str]) -> None:
        self.gone += victims

    def crowds(self, keeper: Tenant, needed: Needed) -> bool:
        return len(self.idle) > len(self.gone) or self.is_crowded

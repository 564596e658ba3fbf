"""Where a load gets memory from: the pool's residency, or a stand-in in tests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from llamasup.children.child import Child
from llamasup.children.needs import Needed
from llamasup.children.plan import Plan
from llamasup.memory.room import Room


class Tenant(Protocol):
    """The keeper whose child takes the memory."""

    plan: Plan

    @property
    def model(self) -> str:
        """The model's name."""


class Place(Protocol):
    """Memory for one child, held from `async with` until the child is gone and the memory is
    back."""

    async def __aenter__(self) -> Place: ...

    async def __aexit__(self, *error: object) -> None: ...

    def occupy(self, child: Child) -> None:
        """The place is for this child."""

    def ready(self) -> None:
        """The child is ready."""


class Landlord(Protocol):
    """Gives memory to tenants."""

    async def room(self, tenant: Tenant, /) -> Room:
        """How much memory the tenant's next child may take."""

    async def place(self, tenant: Tenant, needed: Needed, /) -> Place:
        """Wait for a place. Raises NotAdmitted if there can be none."""

    def dispensable(self, tenant: Tenant, needed: Needed, /) -> Sequence[str]:
        """The models that could be unloaded for the tenant's child, in the order of unloading."""

    async def unload(self, victims: Collection[str]) -> None:
        """Unload these models. Returns when their memory is back."""

    def crowds(self, tenant: Tenant, needed: Needed, /) -> bool:
        """Do other models hold memory of the devices that the tenant's child uses?"""

"""What a load asks for memory: the residency of the pool, or a stand-in in tests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from llamasup.children.child import Child
from llamasup.children.needs import Needed
from llamasup.children.plan import Plan
from llamasup.memory.room import Room


class Tenant(Protocol):
    """The keeper whose children take the memory."""

    plan: Plan

    @property
    def model(self) -> str:
        """Its name."""


class Place(Protocol):
    """Memory for one child, held from `async with` until the child is gone and it is back."""

    async def __aenter__(self) -> Place: ...

    async def __aexit__(self, *error: object) -> None: ...

    def occupy(self, child: Child) -> None:
        """It is for this child."""

    def ready(self) -> None:
        """The child is ready."""


class Landlord(Protocol):
    """It has the memory to give."""

    async def room(self, tenant: Tenant, /) -> Room:
        """How much of it the tenant's next child may take."""

    async def place(self, tenant: Tenant, needed: Needed, /) -> Place:
        """A place, waited for. Raises NotAdmitted if there can be none."""

    def dispensable(self, tenant: Tenant, needed: Needed, /) -> Sequence[str]:
        """The models that could go for the tenant's child, the first of them first."""

    async def make_way(self, victims: Collection[str]) -> None:
        """These models go. Returns when their memory is back."""

    def crowds(self, tenant: Tenant, needed: Needed, /) -> bool:
        """Do other models hold memory beside the tenant's child?"""

"""The models that exist now: what the library holds, made known to the pool.

Folders are not watched, so that llamasup sleeps while there are no requests. It looks into them
when it matters: before the models are listed, before a name is refused, and when a model's file
turns out to be missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import trio

from llamasup import tending
from llamasup.children.plan import Plan
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import AnyModel, ModelSettings
from llamasup.errors import ClientError, ModelNotFound
from llamasup.models.library import Library, Look
from llamasup.models.names import Choice, Names
from llamasup.pool.pool import Pool

log = logging.getLogger(__name__)

PAUSE: Final = 1.0
"""Seconds between two looks. A client that asks for a wrong name in a loop must not keep the disks
busy, which may be slow, asleep or on the network."""


_NOT_YET: Final = Look({}, {}, {})


class Roster:
    """Looks at the library, tells the pool, and knows which model a client's name means."""

    def __init__(
        self,
        library: Library,
        plan: Callable[[str, AnyModel], Plan],
        pool: Pool,
        in_effect: InEffect,
        nursery: trio.Nursery,
    ) -> None:
        self.look = _NOT_YET
        """What the last look found."""

        self.library = library
        self._plan = plan
        self._pool = pool
        self._in_effect = in_effect
        self._plans: dict[str, Plan] = {}
        self._nursery = nursery
        self._looked: trio.Event | None = None
        self._not_before = 0.0
        self._named: tuple[object, object, Names] | None = None
        """The names of these models here and of those elsewhere, together."""

    async def choose(self, asked: str | None) -> Choice:
        """What answers a request for `asked`, even if that is new. Raises ModelNotFound or
        ClientError.

        If there is nothing of that name, this is the default model where `server.unknown_model`
        says so.
        """
        try:
            return await self.named(asked)
        except ModelNotFound:
            if self._in_effect.config.server.unknown_model == "default":
                with suppress(ClientError):
                    return self._chosen(None)
            raise

    async def named(self, asked: str | None) -> Choice:
        """What `asked` means, even if that is new. Raises ModelNotFound or ClientError."""
        try:
            return self._chosen(asked)
        except ClientError:
            await self.refresh()
        try:
            return self._chosen(asked)
        except ClientError:
            wanted = asked or self._in_effect.config.server.default_model
            if not await self._pool.outside.fleet.await_model(wanted):
                raise
        return self._chosen(asked)

    async def beginning(self, path: bytes) -> tuple[Choice, bytes]:
        """Which model here a path begins with, even if that is new, and the rest of the path.

        Raises ModelNotFound, and ClientError for a model of instances elsewhere: such an instance
        is a whole server, with other models and operators' pages, and we have a key there.
        """
        text = path.decode("latin-1")
        found = self.look.names.beginning(text)
        if found is None:
            await self.refresh()
            found = self.look.names.beginning(text)
        choice, rest = found or await self._widely(text)
        return choice, rest.encode("latin-1")

    async def _widely(self, path: str) -> tuple[Choice, str]:
        """What is meant by a path that begins with no model's name. Raises what `beginning` raises,
        and says what is near."""
        first, slash, rest = path.partition("/")
        if not first:
            raise ModelNotFound("the path names no model: write /upstream/NAME/")
        choice = await self.named(unquote(first))
        if choice.model not in self.look.models:
            raise ClientError(
                f'"{choice.name}" runs on an instance elsewhere, and /upstream/ leads only to'
                " engines here: ask that server itself"
            )
        return choice, slash + rest

    def _chosen(self, asked: str | None) -> Choice:
        default = self._in_effect.config.server.default_model
        names, elsewhere = self.look.names, self._pool.outside.fleet
        if not elsewhere.models:
            return names.choose(asked, default)
        wanted = asked or default
        if (own := names.find(wanted)) or not (model := elsewhere.find(wanted)):
            return own or self._all_names.choose(asked, default)
        return Choice(model, model)

    @property
    def _all_names(self) -> Names:
        """The names of all models, here and elsewhere, for one that neither knows exactly."""
        here, elsewhere = self.look.models, self._pool.outside.fleet.models
        if self._named is None or self._named[0] is not here or self._named[1] is not elsewhere:
            others = {model: ModelSettings(path=Path(f"{model}.gguf")) for model in elsewhere}
            self._named = here, elsewhere, Names({**others, **here})
        return self._named[2]

    async def refresh(self) -> None:
        """Look again, unless that was done just now. All calls during a look share it.

        If this is cancelled, a look that has begun goes on for the other calls.
        """
        if self._looked is None:
            if trio.current_time() < self._not_before:
                return
            self._looked = trio.Event()
            name = "look at the library"
            self._nursery.start_soon(tending.alone, name, self._look, self._looked, name=name)
        await self._looked.wait()

    async def _look(self, looked: trio.Event) -> None:
        library = self.library
        try:
            look = await library.look()
            if library is self.library:
                self._offer(look)
        finally:
            self._not_before = trio.current_time() + PAUSE
            self._looked = None
            looked.set()

    def replace(self, library: Library, look: Look) -> None:
        """Use this library from now on, and this look at it; every model gets a new plan."""
        self.library = library
        self._plans.clear()
        self._offer(look)

    def _offer(self, look: Look) -> None:
        _report(self.look, look)
        self.look = look
        self._plans = {
            model: self._planned(model, settings) for model, settings in look.models.items()
        }
        self._pool.offer(self._plans.values())

    def _planned(self, model: str, settings: AnyModel) -> Plan:
        """The model's plan: the same as before if nothing has changed."""
        plan = self._plans.get(model)
        unchanged = plan and (plan.settings is settings or plan.settings == settings)
        return plan if plan and unchanged else self._plan(model, settings)


def _report(before: Look, now: Look) -> None:
    for folder, why in now.unreadable.items():
        if before.unreadable.get(folder) != why:
            log.warning("%s cannot be looked through for models: %s", folder, why)
    came, went = now.models.keys() - before.models.keys(), before.models.keys() - now.models.keys()
    for names, what in ((came, "came"), (went, "went")):
        if names and before is not _NOT_YET:
            log.info("models that %s: %s", what, ", ".join(sorted(names)))

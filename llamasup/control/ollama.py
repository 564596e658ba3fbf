"""What Ollama's clients ask about models: which there are, what they can do, and which are loaded.

Editors find local models through these. Nothing is loaded for an answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
import trio
from attrs import frozen

from llamasup.access.keyring import demand_use, discreet, may_use
from llamasup.apis.ollama_requests import understood
from llamasup.children.keeper import Keeper
from llamasup.config.schema import KeySettings
from llamasup.control import ollama_documents as documents
from llamasup.control.ollama_documents import Document, Loaded, Shown
from llamasup.errors import ClientError, ModelNotFound, NotOffered, RouteNotFound
from llamasup.models.facts import Facts
from llamasup.models.headers import Headers
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster


class _Named(msgspec.Struct):
    model: str | None = None
    name: str | None = None
    """What older clients write for `model`."""

    source: str | None = None

    @property
    def wanted(self) -> str:
        return self.model or self.name or self.source or ""


@frozen
class OllamaPages:
    """The answers below `/api`."""

    pool: Pool
    roster: Roster
    headers: Headers

    async def answer(
        self, path: str, accepted: bytes, body: bytes, key: KeySettings
    ) -> Document | str:
        """The document of this page, or its text, for a client with this key that accepts these
        types.

        Raises ClientError for a body that cannot be understood, ModelNotFound, ModelForbidden,
        NotOffered, and RouteNotFound for browsers at the root.
        """
        match path:
            case "/":
                return _root(accepted)
            case "/api/version":
                return documents.version()
            case "/api/tags":
                return await self.tags(key)
            case "/api/ps":
                return await self.running(key)
        named = understood(body, _Named) if body else _Named()
        if path == "/api/show":
            return await self.show(named.wanted, key)
        if path == "/api/pull" and await self._is_here(named.wanted, key):
            return {"status": "success"}
        raise NotOffered(documents.refusal(path, named.wanted))

    async def tags(self, key: KeySettings) -> Document:
        """The models that exist now: those that this key may use."""
        await self.roster.refresh()
        keepers = self.pool.keepers
        listed = [
            (choice.name, keepers[choice.model])
            for choice in self.roster.look.names.listed.values()
            if may_use(key, choice.model, choice.name)
        ]
        facts = await self._facts([keeper for _, keeper in listed])
        tags = []
        for name, keeper in listed:
            tags.append(documents.tag(name, facts.get(keeper.model)))
            await trio.lowlevel.checkpoint()  # there may be thousands
        elsewhere = self.pool.outside.fleet.models.keys() - keepers.keys()
        for name in sorted(model for model in elsewhere if may_use(key, model, model)):
            tags.append(documents.tag(name, None))
        return {"models": tags}

    async def running(self, key: KeySettings) -> Document:
        """The models that are loaded now: those that this key may use."""
        loaded = [
            keeper
            for model, keeper in self.pool.keepers.items()
            if keeper.child and may_use(key, model, model)
        ]
        facts = await self._facts(loaded)
        return {
            "models": [
                documents.running(keeper.model, facts.get(keeper.model), self._loaded(keeper))
                for keeper in loaded
            ]
        }

    async def _facts(self, keepers: Sequence[Keeper]) -> Mapping[str, Facts]:
        """What the headers of these models tell, by model."""
        paths = {keeper.model: path for keeper in keepers if (path := keeper.plan.path)}
        known = await self.headers.facts([*paths.values()])
        return {model: known[path] for model, path in paths.items() if path in known}

    def _loaded(self, keeper: Keeper) -> Loaded:
        place = self.pool.residency.places.get(keeper.model)
        return Loaded(place.holds if place else {}, _context(keeper), _expires(keeper))

    async def show(self, asked: str, key: KeySettings) -> Document:
        """Everything about one model. Raises ModelNotFound, ModelForbidden, and ClientError without
        a name."""
        if not asked:
            raise ClientError('name a model: {"model": "NAME"}')
        try:
            choice = await self.roster.named(asked)
        except ModelNotFound as error:
            raise discreet(key, error) from None
        demand_use(key, choice.model, choice.name)
        keeper = self.pool.keepers.get(choice.model)
        if keeper is None:
            return documents.shown(documents.ELSEWHERE)
        path, projector = keeper.plan.path, keeper.plan.projector
        facts = await self._facts([keeper])
        return documents.shown(
            Shown(
                facts.get(keeper.model),
                (await self.headers.of(path)).header if path else None,
                await self.headers.chat_template(path) if path else "",
                (await self.headers.of(projector)).header if projector else None,
                await keeper.plan.purpose(),
                _context(keeper),
            )
        )

    async def _is_here(self, asked: str, key: KeySettings) -> bool:
        try:
            choice = await self.roster.named(asked)
        except ClientError:
            return False
        return may_use(key, choice.model, choice.name)


def _root(accepted: bytes) -> str:
    """What Ollama's clients read here to see that it is there. Raises RouteNotFound for browsers,
    which are looking for something else."""
    if b"text/html" in accepted:
        raise RouteNotFound("there is nothing at /; try /v1/models or /health")
    return "Ollama is running"


def _context(keeper: Keeper) -> int | None:
    """The context that a request has, if the model is loaded."""
    if keeper.child is None or keeper.rung is None or keeper.rung.context is None:
        return None
    return keeper.rung.context // keeper.child.slots.size


def _expires(keeper: Keeper) -> float | None:
    """When the model's child is unloaded if nobody uses it, in seconds since 1970."""
    child, idle_unload = keeper.child, keeper.plan.idle_unload
    if child is None or not idle_unload or not keeper.plan.settings.unloadable:
        return None
    used = trio.current_time() if child.users else child.last_used
    return time.time() - trio.current_time() + used + idle_unload

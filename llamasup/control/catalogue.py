"""Collects what listings tell of the models that exist now. Nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from llamasup.access.keyring import demand_use, discreet, may_use
from llamasup.children.keeper import Keeper
from llamasup.config.schema import Config, KeySettings, Offer
from llamasup.control import elsewhere
from llamasup.control.asgi import one_by_one
from llamasup.control.listing import (
    Listed,
    Standing,
    anthropic_entry,
    anthropic_list,
    entry,
)
from llamasup.errors import ModelNotFound, ModelNotNamed
from llamasup.models.headers import Headers
from llamasup.models.names import Choice
from llamasup.models.profile import Profile
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster

_AT_ONCE: Final = 100
"""Models; then other tasks get a turn."""


def standing(keeper: Keeper) -> Standing:
    """How the keeper's model stands at this moment."""
    failure = keeper.last_failure
    asleep = keeper.child is not None and keeper.child.asleep
    return Standing(keeper.state, keeper.progress, str(failure) if failure else "", asleep)


class Catalogue:
    """The models, as clients may see them."""

    def __init__(
        self,
        config: Callable[[], Config],
        pool: Pool,
        roster: Roster,
        headers: Headers,
        since: float,
    ) -> None:
        """All models are said to be there since that time."""
        self._config = config
        self._pool = pool
        self._roster = roster
        self._headers = headers
        self._since = int(since)
        self._since_text = datetime.fromtimestamp(self._since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def all(self, key: KeySettings, for_anthropic: bool) -> object:
        """What exists now and may be used with this key, but for what the operator does not want to
        be listed."""
        await self._roster.refresh()
        choices = self._roster.look.names.listed.values()
        allowed = [choice for choice in choices if may_use(key, choice.model, choice.name)]
        listed = await self._listed(allowed)
        if self._config().discover.hide_defective:
            listed = [one for one in listed if one.configured or not one.defect]
        listed += self._elsewhere(key)
        entries = await one_by_one(listed, lambda one: self._entry(one, for_anthropic))
        if for_anthropic:
            return anthropic_list(entries, [one.name for one in listed])
        return {"object": "list", "data": entries}

    async def one(self, name: str, key: KeySettings, for_anthropic: bool) -> object:
        """One entry, even if it is not listed. Raises ModelNotFound, and ModelForbidden if it is
        not for this key."""
        try:
            choice = await self._roster.named(name)
        except (ModelNotFound, ModelNotNamed) as error:
            raise discreet(key, error) from None
        demand_use(key, choice.model, choice.name)
        if choice.model not in self._pool.keepers:
            return self._entry(self._there(choice.model), for_anthropic)
        [listed] = await self._listed([choice])
        return self._entry(listed, for_anthropic)

    def _elsewhere(self, key: KeySettings) -> list[Listed]:
        models = self._pool.outside.fleet.models.keys() - self._pool.keepers.keys()
        return [self._there(model) for model in sorted(models) if may_use(key, model)]

    def _there(self, model: str) -> Listed:
        """A model of instances elsewhere, of which only they know more."""
        instances = self._pool.outside.fleet.models.get(model, ())
        standing = elsewhere.standing(model, instances)
        return Listed(model, (), Offer(), standing, None, None, None, None, 1, configured=False)

    def offered(self, key: KeySettings) -> list[Choice]:
        """What may be used with this key, here and elsewhere, by the names that are listed."""
        own = list(self._roster.look.names.listed.values())
        known = {choice.name for choice in own}
        others = [Choice(m, m) for m in self._pool.outside.fleet.models if m not in known]
        return [choice for choice in own + others if may_use(key, choice.model, choice.name)]

    def _entry(self, listed: Listed, for_anthropic: bool) -> object:
        if for_anthropic:
            return anthropic_entry(listed, self._since_text)
        return entry(listed, self._since)

    async def _listed(self, choices: Sequence[Choice]) -> list[Listed]:
        keepers = self._pool.keepers
        plans = {choice.model: keepers[choice.model].plan for choice in choices}
        files = [plan.path for plan in plans.values() if plan.path]
        projectors = [plan.projector for plan in plans.values() if plan.projector]
        profiles = await self._headers.profiles([*files, *projectors])
        listed = []
        for at, choice in enumerate(choices):
            listed.append(self._told(choice, keepers[choice.model], profiles))
            if at % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
        return listed

    def _told(self, choice: Choice, keeper: Keeper, profiles: Mapping[Path, Profile]) -> Listed:
        plan = keeper.plan
        return Listed(
            choice.name,
            choice.aliases,
            plan.settings,
            standing(keeper),
            profiles.get(plan.path) if plan.path else None,
            profiles.get(plan.projector) if plan.projector else None,
            keeper.rung.context if keeper.child and keeper.rung else None,
            plan.known_rungs[0].context,
            plan.slots,
            configured=keeper.model in self._config().models,
        )

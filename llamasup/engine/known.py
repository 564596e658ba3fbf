"""What is known about the engine: which program it is now, and what it answered when it was asked.

Its file is looked at in a worker thread whenever the engine matters, but only once in a glance at
many models (`models.glances`). The program is run again only if it is another one, or was replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import trio
from attrs import evolve, frozen

from llamasup import threads
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import EngineSettings, ModelSettings
from llamasup.engine.argv import environment
from llamasup.engine.devices import listing
from llamasup.engine.locate import COMMAND, Engine, Program, ask, locate
from llamasup.engine.memory_args import RPC, word_after
from llamasup.errors import ModelUnavailable
from llamasup.memory.listing import Listing
from llamasup.models.glances import seen
from llamasup.models.headers import stamp

log = logging.getLogger(__name__)

PATIENCE: Final = 5.0
"""Seconds for which the engine's disk is waited for."""

_SAYS_DEVICES: Final = re.compile(
    r"LLAMA_ARG_|GGML_|CUDA_|HIP_|ROCR_|HSA_|ZE_|ONEAPI_|\w*VISIBLE_DEVICES"
)


_MOST_OWN: Final = 64


class Engines:
    """The engine of the configuration in effect, and those of models that have one of their own, or
    an environment of their own."""

    def __init__(self, in_effect: InEffect, environ: Mapping[str, str], cache: Path) -> None:
        self._known = in_effect, environ, cache
        self.common = KnownEngine(in_effect, environ, cache)
        self._own: OrderedDict[Own, KnownEngine] = OrderedDict()

    def of(self, model: ModelSettings) -> KnownEngine:
        """The engine of this model."""
        own = Own(model.engine, tuple(sorted(model.env.items())))
        if own == _NOTHING_OWN:
            return self.common
        if own not in self._own:
            self._own[own] = KnownEngine(*self._known, own)
        self._own.move_to_end(own)
        if len(self._own) > _MOST_OWN:
            self._own.popitem(last=False)
        return self._own[own]


@frozen
class Own:
    """What the engine of a model has of its own."""

    command: str = ""
    env: tuple[tuple[str, str], ...] = ()


_NOTHING_OWN: Final = Own()


class KnownEngine:
    """The engine of the configuration in effect; or with something `own`, that of some models."""

    def __init__(
        self, in_effect: InEffect, environ: Mapping[str, str], cache: Path, own: Own = _NOTHING_OWN
    ) -> None:
        self._in_effect = in_effect
        self._own = own
        self._settings: tuple[EngineSettings, EngineSettings] | None = None
        """The settings of the common engine, and what they are for this one."""

        self._environ = environ
        self._cache = cache
        self._asking = trio.Lock()
        self._lane = threads.Lane()
        self._in_passing = threads.Lane()
        """For looks that are given up soon. A disk that is too slow for them need not hang, so
        other looks do not use this lane."""

        self._begun = 0
        """How many looks have begun."""

        self._seen_through = 0
        """The number of the last look that succeeded."""

        self._known: tuple[object, Engine] | None = None
        self._digested: tuple[object, str] | None = None

    @property
    def settings(self) -> EngineSettings:
        """The configuration of the engine."""
        common = self._in_effect.config.engine
        if self._own == _NOTHING_OWN:
            return common
        if self._settings is None or self._settings[0] is not common:
            command = self._own.command or common.command
            env = {**common.env, **dict(self._own.env)}
            self._settings = common, evolve(common, command=command, env=env)
        return self._settings[1]

    @property
    def last(self) -> Engine | None:
        """The engine as it answered last; None before its first answer."""
        return self._known[1] if self._known else None

    async def now(self) -> Engine:
        """The engine as it is now. Raises EngineUnusable in its own words, and ModelUnavailable if
        its disk does not answer.

        If this is cancelled, nothing is remembered.
        """
        _, engine = await seen(self, self._looked)
        return engine

    async def _looked(self) -> tuple[object, Engine]:
        """Look at the engine. All tasks that come during a look share the next one."""
        begun = self._begun
        async with self._asking:
            if self._known is None or self._seen_through <= begun:
                self._begun += 1
                self._known = await self._asked(self._known)
                self._seen_through = self._begun
            return self._known

    async def _asked(self, known: tuple[object, Engine] | None) -> tuple[object, Engine]:
        program, identity = await self._found(self._lane, PATIENCE)
        if known is not None and known[0] == identity:
            return known
        engine = await ask(program, self.environment(program))
        log.info("engine: %s (%s)", program, engine.version)
        return identity, engine

    async def identity(self, patience: float) -> object:
        """What changes when it is another program, or its file is replaced.

        Raises EngineUnusable, and ModelUnavailable if its disk does not answer in time; then `now`
        waits for the disk all the same.
        """
        _, identity = await self._found(self._in_passing, patience)
        return identity

    async def _found(self, lane: threads.Lane, patience: float) -> tuple[Program, object]:
        try:
            return await lane.run(self._located, patience=patience)
        except OSError as error:
            raise ModelUnavailable(f"the engine cannot be looked for: {error.strerror}") from error

    def _located(self) -> tuple[Program, object]:
        key = "models.NAME.engine" if self._own.command else COMMAND
        program = locate(self.settings.command, self._environ, self._cache, key)
        return program, (program, stamp([program.command[0]]))

    async def listing(self, args: Sequence[str]) -> Listing | None:
        """How to make the engine list the devices that a child with these arguments would see; None
        if it cannot list them. Raises what `now` raises."""
        identity, engine = await seen(self, self._looked)
        servers = word_after(args, RPC)
        found = listing(engine, identity, servers, self.environment(engine.program))
        return found and evolve(found, owner=None if self._own == _NOTHING_OWN else self._own)

    def environment(self, program: Program) -> dict[str, str]:
        """The environment of the engine's processes."""
        return environment(program, self._environ, self.settings.env, sys.platform)

    def devices_by_environment(self, program: Program) -> str:
        """A value that changes with what the environment says to the engine and its drivers. It is
        a digest, because they may hold keys. It is needed for every question about any model."""
        circumstances = (self.settings, program)
        if self._digested is None or self._digested[0] != circumstances:
            self._digested = circumstances, self._digest_of_environment(program)
        return self._digested[1]

    def _digest_of_environment(self, program: Program) -> str:
        said = {k: v for k, v in self.environment(program).items() if _SAYS_DEVICES.match(k)}
        whole = json.dumps([sorted(said.items()), sorted(self.settings.env.items())])
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

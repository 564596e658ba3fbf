"""Prepares llama-servers: which engine, with which arguments, listening where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from llamasup import threads
from llamasup.children.child import Child, Launch
from llamasup.children.dry_run import DryRun, run_dry
from llamasup.children.ports import ANY_PORT, Ports
from llamasup.children.server_launcher import ServerLauncher
from llamasup.config.addresses import Address, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import ModelSettings
from llamasup.engine.argv import argv, asks_for_keys, files_in, for_questions, own_args
from llamasup.engine.breakdown import can_be_asked, question
from llamasup.engine.cores import sharing
from llamasup.engine.known import Engines
from llamasup.engine.locate import Engine
from llamasup.engine.memory_args import cache_ram
from llamasup.errors import ModelUnavailable
from llamasup.memory.ladder import Rung
from llamasup.memory.listing import Listing
from llamasup.memory.machine import Machine, ThisMachine, host
from llamasup.memory.room import Amounts
from llamasup.models.discover import parts_of
from llamasup.models.glances import seen
from llamasup.models.headers import stamp
from llamasup.models.purpose import Purpose
from llamasup.processes.run_folder import RunFolder

_DISK_PATIENCE = 5.0
_BRIEFLY = 2.0
_MOST_THREADS = 4
_MOST_CACHE_RAM = 2 << 30


class Launcher:
    """Prepares llama-servers, and asks engines how much memory one would take."""

    def __init__(
        self,
        in_effect: InEffect,
        environ: Mapping[str, str],
        cache: Path,
        run_folder: RunFolder,
        machine: Machine | None = None,
    ) -> None:
        self.in_effect = in_effect
        self.machine = machine or ThisMachine()
        self.engines = Engines(in_effect, environ, cache)
        self._ports = Ports()
        self.servers = ServerLauncher(in_effect, environ, run_folder, self._ports)
        self._run_folder = run_folder
        self._at_models = threads.Lane(_MOST_THREADS)
        self._in_passing = threads.Lane(_MOST_THREADS)
        """For looks that are soon given up: a disk that is slow for them need not hang."""

        self._sizes: dict[Path, int] = {}

    async def child(
        self,
        model: str,
        settings: ModelSettings,
        rung: Rung,
        purpose: Purpose = Purpose.GENERATE,
    ) -> Child:
        """The next child of `model`, on `rung`, not yet started. Raises ModelUnavailable."""
        known = self.engines.of(settings)
        engine = await known.now()
        address = self._address(engine)
        launch = Launch(
            model=model,
            argv=argv(
                engine,
                model,
                settings,
                rung,
                address,
                await self._cache_ram(),
                known.settings.args,
                purpose,
            ),
            environment={
                **sharing(self.in_effect.config, settings),
                **known.environment(engine.program),
            },
            address=address,
            slots=settings.parallel,
            in_effect=self.in_effect,
            asks_for_keys=asks_for_keys(self.args(settings), known.settings.env),
        )
        child = Child(launch, self._run_folder)
        self._ports.give(child)
        return child

    async def _size(self, path: Path) -> int:
        """The size of a model's file; the last one known if its disk hangs, 0 if there is no
        file."""
        try:
            found = await self._at_models.run(
                os.stat, path, patience=_DISK_PATIENCE, place=path.parent
            )
        except (TimeoutError, BlockingIOError):
            return self._sizes.get(path, 0)
        except OSError:
            return 0
        self._sizes[path] = found.st_size
        return found.st_size

    async def circumstances(self, settings: ModelSettings) -> object:
        """A value that changes when one of the model's files or the engine does: then a new try
        makes sense.

        None if the engine cannot be found, or a disk does not answer soon.
        """
        files = [settings.path, Path(settings.mmproj), *files_in(self.args(settings))]
        try:
            identity = await self.engines.of(settings).identity(_BRIEFLY)
            stamps = await self._in_passing.run(
                _stamp_of_all_parts, files, patience=_BRIEFLY, place=settings.path.parent
            )
        except (OSError, ModelUnavailable):
            return None
        return identity, stamps

    async def key(self, settings: ModelSettings) -> str:
        """The key for what is learned of a model: all that it depends on. Raises EngineUnusable."""
        known = self.engines.of(settings)
        engine = await known.now()
        path = settings.path
        size = await seen((Launcher, path), lambda: self._size(path))
        depends_on = [
            str(settings.path),
            size,
            str(settings.mmproj),
            str(engine.program),
            engine.version,
            settings.parallel,
            *self.args(settings),
            known.devices_by_environment(engine.program),
            *(() if settings.purpose == "auto" else (settings.purpose,)),
        ]
        return json.dumps(depends_on)

    async def breakdown(
        self, settings: ModelSettings, rung: Rung, purpose: Purpose = Purpose.GENERATE
    ) -> Amounts | None:
        """What a child on `rung` would take, as the engine itself says, by its names of devices.

        None if the engine cannot be asked, or has no answer. Raises Unheard, and EngineUnusable.
        """
        known = self.engines.of(settings)
        engine = await known.now()
        args = self.args(settings)
        if not can_be_asked(engine.flags, args):
            return None
        address = self._private_address(engine)
        engine_args, cached = known.settings.args, await self._cache_ram()
        words = argv(engine, "", settings, rung, address, cached, engine_args, purpose)
        surroundings = for_questions(known.environment(engine.program))
        attempt = DryRun(question(words), surroundings, address)
        return await run_dry(attempt, self._run_folder)

    async def listing(self, settings: ModelSettings) -> Listing | None:
        """How to make the engine list the devices that a child of this model would see; None if it
        cannot list them. Raises EngineUnusable."""
        return await self.engines.of(settings).listing(self.args(settings))

    async def common_listing(self) -> Listing | None:
        """The same for the engine that most models share."""
        return await self.engines.common.listing(self.in_effect.config.engine.args)

    def most_cache_ram(self, settings: ModelSettings) -> int:
        """The most bytes of the host's memory that a child's prompt cache may take."""
        wanted = self.in_effect.config.engine.cache_ram
        args = self.args(settings)
        return cache_ram(args, _MOST_CACHE_RAM if wanted == "auto" else wanted)

    async def _cache_ram(self) -> int:
        """How much host memory a child's prompt cache may take now; the engine's default is 8 GiB.

        If the system does not say what is free, the usual limit stands."""
        wanted = self.in_effect.config.engine.cache_ram
        if wanted != "auto":
            return wanted
        shares = [device.free // 8 for device in await host(self.machine)]
        return min([_MOST_CACHE_RAM, *shares])

    def args(self, settings: ModelSettings) -> list[str]:
        """What the operator tells the engine of this model."""
        return own_args(self.in_effect.config.engine.args, settings)

    def _address(self, engine: Engine) -> Address:
        """A private Unix socket; a port where the engine has none, or the operator wants one."""
        first = self.in_effect.config.engine.port_range_start
        if first or not engine.unix_sockets:
            return self._ports.free(first)
        return self._private_address(engine)

    def _private_address(self, engine: Engine) -> Address:
        if engine.unix_sockets:
            return UnixAddress(str(self._run_folder.next_socket()))
        return ANY_PORT


def _stamp_of_all_parts(files: Iterable[Path]) -> object:
    return stamp(part for file in files for part in parts_of(file))

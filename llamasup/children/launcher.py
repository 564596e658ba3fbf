"""Prepares children: which engine, with which arguments, listening where."""

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
from llamasup.engine.argv import argv, asks_for_keys, files_in, for_questions
from llamasup.engine.breakdown import can_be_asked, question
from llamasup.engine.known import KnownEngine
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
    """Prepares children, and asks engines how much memory a child would take."""

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
        self.engine = KnownEngine(in_effect, environ, cache)
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
        engine = await self.engine.now()
        address = self._address(engine)
        engine_args = self.engine.settings.args
        launch = Launch(
            model=model,
            argv=argv(
                engine,
                model,
                settings,
                rung,
                address,
                await self._cache_ram(),
                engine_args,
                purpose,
            ),
            environment=self.engine.environment(engine.program),
            address=address,
            slots=settings.parallel,
            in_effect=self.in_effect,
            asks_for_keys=asks_for_keys(self._args(settings), self.engine.settings.env),
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
        files = [settings.path, Path(settings.mmproj), *files_in(self._args(settings))]
        try:
            identity = await self.engine.identity(_BRIEFLY)
            stamps = await self._in_passing.run(
                _stamp_of_all_parts, files, patience=_BRIEFLY, place=settings.path.parent
            )
        except (OSError, ModelUnavailable):
            return None
        return identity, stamps

    async def key(self, settings: ModelSettings) -> str:
        """The key for what is learned of a model: all that it depends on. Raises EngineUnusable."""
        engine = await self.engine.now()
        path = settings.path
        size = await seen((Launcher, path), lambda: self._size(path))
        depends_on = [
            str(settings.path),
            size,
            str(settings.mmproj),
            str(engine.program),
            engine.version,
            settings.parallel,
            *self.engine.settings.args,
            *settings.extra_args,
            self.engine.devices_by_environment(engine.program),
            *(() if settings.purpose == "auto" else (settings.purpose,)),
        ]
        return json.dumps(depends_on)

    async def breakdown(
        self, settings: ModelSettings, rung: Rung, purpose: Purpose = Purpose.GENERATE
    ) -> Amounts | None:
        """What a child on `rung` would take, as the engine itself says, by its names of devices.

        None if the engine cannot be asked, or has no answer. Raises Unheard, and EngineUnusable.
        """
        engine = await self.engine.now()
        args = self._args(settings)
        if not can_be_asked(engine.flags, args):
            return None
        address = self._private_address(engine)
        engine_args, cached = self.engine.settings.args, await self._cache_ram()
        words = argv(engine, "", settings, rung, address, cached, engine_args, purpose)
        surroundings = for_questions(self.engine.environment(engine.program))
        attempt = DryRun(question(words), surroundings, address)
        return await run_dry(attempt, self._run_folder)

    async def listing(self, settings: ModelSettings) -> Listing | None:
        """How to make the engine list the devices that a child of this model would see; None if it
        cannot list them. Raises EngineUnusable."""
        return await self.engine.listing(self._args(settings))

    def most_cache_ram(self, settings: ModelSettings) -> int:
        """The most bytes of the host's memory that a child's prompt cache may take."""
        wanted = self.engine.settings.cache_ram
        args = self._args(settings)
        return cache_ram(args, _MOST_CACHE_RAM if wanted == "auto" else wanted)

    async def _cache_ram(self) -> int:
        """How much host memory a child's prompt cache may take now; the engine's default is 8 GiB.

        If the system does not say what is free, the usual limit stands."""
        wanted = self.engine.settings.cache_ram
        if wanted != "auto":
            return wanted
        shares = [device.free // 8 for device in await host(self.machine)]
        return min([_MOST_CACHE_RAM, *shares])

    def _args(self, settings: ModelSettings) -> list[str]:
        return [*self.engine.settings.args, *settings.extra_args]

    def _address(self, engine: Engine) -> Address:
        """A private Unix socket; a port where the engine has none, or the operator wants one."""
        first = self.engine.settings.port_range_start
        if first or not engine.unix_sockets:
            return self._ports.free(first)
        return self._private_address(engine)

    def _private_address(self, engine: Engine) -> Address:
        if engine.unix_sockets:
            return UnixAddress(str(self._run_folder.next_socket()))
        return ANY_PORT


def _stamp_of_all_parts(files: Iterable[Path]) -> object:
    return stamp(part for file in files for part in parts_of(file))

"""Plans incarnations: which engine, with which arguments, listening where."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from weakref import WeakSet

import trio

from llamasup import threads
from llamasup.children.child import Child, Launch
from llamasup.children.dry_run import DryRun, run_dry
from llamasup.config.addresses import Address, TcpAddress, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import EngineSettings, ModelSettings
from llamasup.engine.argv import argv, asks_for_keys, environment, files_in, for_questions
from llamasup.engine.breakdown import can_be_asked, question
from llamasup.engine.devices import listing
from llamasup.engine.locate import Engine, Program, ask, locate
from llamasup.engine.memory_args import RPC, cache_ram, word_after
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
from llamasup.shortages import is_shortage
from llamasup.states import ChildState

log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_HIGHEST_PORT = 65535
_ANY_PORT = 0
_DISK_PATIENCE = 5.0
_MOST_THREADS = 4
_MOST_CACHE_RAM = 2 << 30
_SAYS_DEVICES = re.compile(r"LLAMA_ARG_|GGML_|CUDA_|HIP_|ROCR_|HSA_|ZE_|ONEAPI_|\w*VISIBLE_DEVICES")


class Launcher:
    """Knows the engine, and asks it again whenever its program was replaced."""

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
        self._environ = environ
        self._cache = cache
        self._run_folder = run_folder
        self._asking = trio.Lock()
        self._at_engine = threads.Lane()
        self._at_models = threads.Lane(_MOST_THREADS)
        self._sizes: dict[Path, int] = {}
        self._known: tuple[object, Engine] | None = None
        self._digested: tuple[object, str] | None = None
        self._children: WeakSet[Child] = WeakSet()

    @property
    def engine_settings(self) -> EngineSettings:
        """What is configured for every engine."""
        return self.in_effect.config.engine

    @property
    def known_engine(self) -> Engine | None:
        """The engine as it last answered; None before it did."""
        return self._known[1] if self._known else None

    async def engine(self) -> Engine:
        """The engine as it is now. Raises EngineUnusable in its own words."""
        async with self._asking:
            program, identity = await seen(self, self._program)
            if self._known is None or self._known[0] != identity:
                engine = await ask(program, self._environment(program))
                log.info("engine: %s (%s)", program, engine.version)
                self._known = identity, engine
            return self._known[1]

    def _located(self) -> tuple[Program, object]:
        program = locate(self.engine_settings.command, self._environ, self._cache)
        return program, _identity(program)

    async def child(
        self,
        model: str,
        settings: ModelSettings,
        rung: Rung,
        purpose: Purpose = Purpose.GENERATE,
    ) -> Child:
        """The next incarnation of `model`, on `rung`, not started. Raises ModelUnavailable."""
        engine = await self.engine()
        address = self._address(engine)
        engine_args = self.engine_settings.args
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
            environment=self._environment(engine.program),
            address=address,
            slots=settings.parallel,
            in_effect=self.in_effect,
            asks_for_keys=asks_for_keys(
                [*self.engine_settings.args, *settings.extra_args], self.engine_settings.env
            ),
        )
        child = Child(launch, self._run_folder)
        self._children.add(child)
        return child

    async def _program(self) -> tuple[Program, object]:
        """Where the engine is now. Raises EngineUnusable, or ModelUnavailable if its disk hangs."""
        try:
            return await self._at_engine.run(self._located, patience=_DISK_PATIENCE)
        except OSError as error:
            raise ModelUnavailable(f"the engine cannot be looked for: {error.strerror}") from error

    async def _size(self, path: Path) -> int:
        """Of a model's file; as it was, if its disk does not say, and 0 of what is not there."""
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

    def circumstances(self, settings: ModelSettings) -> object:
        """Changes when one of the model's files or the engine does: then a new try makes sense.

        It asks disks, in whichever thread it is called.
        """
        program = locate(self.engine_settings.command, self._environ, self._cache)
        args = [*self.engine_settings.args, *settings.extra_args]
        files = [settings.path, Path(settings.mmproj), *files_in(args)]
        return _identity(program), stamp(part for file in files for part in parts_of(file))

    async def key(self, settings: ModelSettings) -> str:
        """Everything that what is learned of a model depends on. Raises EngineUnusable."""
        engine = await self.engine()
        path = settings.path
        size = await seen((Launcher, path), lambda: self._size(path))
        depends_on = [
            str(settings.path),
            size,
            str(settings.mmproj),
            str(engine.program),
            engine.version,
            settings.parallel,
            *self.engine_settings.args,
            *settings.extra_args,
            self._devices_by_environment(engine.program),
        ]
        return json.dumps(depends_on)

    async def breakdown(
        self, settings: ModelSettings, rung: Rung, purpose: Purpose = Purpose.GENERATE
    ) -> Amounts | None:
        """The engine's own word on what a child on `rung` would take, under its names of devices.

        None if it cannot be asked, or has no answer. Raises Unheard, and EngineUnusable.
        """
        engine = await self.engine()
        args = [*self.engine_settings.args, *settings.extra_args]
        if not can_be_asked(engine.flags, args):
            return None
        address = self._private_address(engine)
        engine_args, cached = self.engine_settings.args, await self._cache_ram()
        words = argv(engine, "", settings, rung, address, cached, engine_args, purpose)
        surroundings = for_questions(self._environment(engine.program))
        attempt = DryRun(question(words), surroundings, address)
        return await run_dry(attempt, self._run_folder)

    async def listing(self, settings: ModelSettings) -> Listing | None:
        """How to have the engine list the devices that a child of this model would see; None if it
        cannot. Raises EngineUnusable."""
        engine = await self.engine()
        servers = word_after([*self.engine_settings.args, *settings.extra_args], RPC)
        surroundings = self._environment(engine.program)
        return listing(engine, _identity(engine.program), servers, surroundings)

    def most_cache_ram(self, settings: ModelSettings) -> int:
        """Bytes of the host's memory that a child's prompt cache may take at most."""
        wanted = self.engine_settings.cache_ram
        args = [*self.engine_settings.args, *settings.extra_args]
        return cache_ram(args, _MOST_CACHE_RAM if wanted == "auto" else wanted)

    async def _cache_ram(self) -> int:
        """How much host memory a child's prompt cache may take; its own default is 8 GiB.

        A system that does not say what is free gives no reason to be more careful than that."""
        wanted = self.engine_settings.cache_ram
        if wanted != "auto":
            return wanted
        shares = [device.free // 8 for device in await host(self.machine)]
        return min([_MOST_CACHE_RAM, *shares])

    def _devices_by_environment(self, program: Program) -> str:
        """Changes with what the environment says to the engine and its drivers. It may hold keys,
        so it is a digest. It is asked for with every question about any model."""
        circumstances = (self.engine_settings, program)
        if self._digested is None or self._digested[0] != circumstances:
            self._digested = circumstances, self._digest_of_environment(program)
        return self._digested[1]

    def _digest_of_environment(self, program: Program) -> str:
        said = {k: v for k, v in self._environment(program).items() if _SAYS_DEVICES.match(k)}
        whole = json.dumps([sorted(said.items()), sorted(self.engine_settings.env.items())])
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def _environment(self, program: Program) -> dict[str, str]:
        return environment(program, self._environ, self.engine_settings.env, sys.platform)

    def _address(self, engine: Engine) -> Address:
        """A private Unix socket; a port where the engine has none, or the operator wants one."""
        first = self.engine_settings.port_range_start
        if first:
            given = self._ports_given()
            candidates = (port for port in range(first, _HIGHEST_PORT + 1) if port not in given)
            return TcpAddress(_LOOPBACK, _free_port(candidates))
        address = self._private_address(engine)
        if isinstance(address, TcpAddress):
            return TcpAddress(_LOOPBACK, _free_port([address.port]))
        return address

    def _private_address(self, engine: Engine) -> Address:
        if engine.unix_sockets:
            return UnixAddress(str(self._run_folder.next_socket()))
        return TcpAddress(_LOOPBACK, _ANY_PORT)

    def _ports_given(self) -> set[int]:
        """The ports of children that live. One that still starts has not bound its own yet."""
        return {
            child.address.port
            for child in self._children
            if isinstance(child.address, TcpAddress) and child.state is not ChildState.GONE
        }


def _identity(program: Program) -> object:
    """Changes when the program's file is replaced."""
    return program, stamp([program.command[0]])


def _free_port(candidates: Iterable[int]) -> int:
    """The first port that nobody uses now. Somebody may still come first: then the load fails
    with "address in use", and the next one looks again."""
    for port in candidates:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((_LOOPBACK, port))
                bound: int = trial.getsockname()[1]
                return bound
        except OSError as error:
            if is_shortage(error):
                raise ModelUnavailable(f"no port can be looked for: {error.strerror}") from error
    raise ModelUnavailable("no port is free from engine.port_range_start upwards")

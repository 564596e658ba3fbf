"""Opens everything in order, serves until it is told to stop, and closes everything in order.

The architecture page says which task is whose.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import attrs
import platformdirs
import trio

from llamasup import tending, threads
from llamasup.children.launcher import Launcher
from llamasup.children.needs import Needs
from llamasup.config.addresses import Address
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, ModelSettings, Seconds
from llamasup.config.source import Source
from llamasup.control.app import ControlApp
from llamasup.control.server import ControlServer
from llamasup.engine.locate import locate
from llamasup.errors import LlamasupError, OperatorError
from llamasup.events import Journal
from llamasup.front.bodies import Bodies
from llamasup.front.desk import Desk
from llamasup.front.server import Front
from llamasup.http.listeners import Listeners, bound_address
from llamasup.learned import State
from llamasup.memory.gauge import Gauge
from llamasup.models.demo import ensure_demo
from llamasup.models.library import Look
from llamasup.narrator import HEARD, narrate
from llamasup.pid1 import reap_orphans
from llamasup.pool.pool import Pool
from llamasup.processes.orphans import sweep
from llamasup.processes.run_folder import RunFolder, default_base, own_run_folder
from llamasup.reload import Follower, Running
from llamasup.systemd import Notifier
from llamasup.terminal import Terminal

log = logging.getLogger(__name__)

_LAST_WORDS = 1.0
"""Seconds to tell clients that their answers end, whatever they take of it."""

DEMO = "demo"
_PATIENCE = 10.0
_LAST_PATIENCE = 10.0
"""Seconds that closing may take when everything is told to go at once, beside children's grace."""

_UNDEAD = 40.0
"""The same where nobody is in a hurry: a child that a KILL does not end is waited for."""

_CONTEXT_OF_THE_DEMO = 4096

Announce = Callable[[Config, list[Address], Look], None]
"""Called once, when requests are welcome, with the models that there are then."""


async def serve(
    config: Config, source: Source, environ: Mapping[str, str], announce: Announce
) -> None:
    """Serve until SIGINT or SIGTERM, then drain: running answers get `drain_timeout`.

    A second signal ends them. A SIGHUP, or a change of its file, has `config` loaded again
    from `source`; but a SIGHUP of a terminal that is closed counts as a signal to stop. Raises
    OperatorError or EngineUnusable before anything was started, if it cannot serve. Cancelled, it
    stops the children before it returns.
    """
    cache = cache_folder(config)

    def prepare(config: Config) -> Config:
        locate(config.engine.command, environ, cache)
        return with_demo(config, cache)

    config = prepare(config)
    in_effect = InEffect(config)
    journal = Journal()
    terminal = Terminal()
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
        own_run_folder(run_base(config, environ)) as (run_folder, left),
        Listeners() as listeners,
        journal.heard_by(narrate, *HEARD),
    ):
        listeners.move(config.server.listen)
        notifier = Notifier(environ)
        stop = Stop(config.server.drain_timeout, config.engine.stop_grace, notifier)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.heed, signals)
            if os.getpid() == 1:
                nursery.start_soon(tending.again, "who reaps orphans", reap_orphans)
            with stop.hurry:
                await sweep(left, config.recovery.leftover_patience)
                launcher = Launcher(in_effect, environ, cache, run_folder)
                await _serve(
                    in_effect,
                    prepare,
                    Follower(source, terminal.reloads(hangups, stop.begin), notifier),
                    launcher,
                    journal,
                    run_folder,
                    listeners,
                    stop,
                    notifier,
                    announce,
                )
            nursery.cancel_scope.cancel()


class Stop:
    """The operator's wish to stop: first gently, then at once."""

    def __init__(self, drain_timeout: Seconds, grace: Seconds, notifier: Notifier) -> None:
        self.grace = grace
        self._notifier = notifier
        self.wished = trio.Event()
        self.last_call = trio.Event()
        """What has not ended by now is to be broken off, in a way that clients understand."""

        self.hurry = trio.CancelScope()
        self._patience = trio.CancelScope()
        self.drain_timeout = drain_timeout

    async def heed(self, signals: AsyncIterator[int]) -> None:
        """The first signal begins the drain; the second one, or its timeout, ends it.

        Clients have a moment then to be told; a third signal does without. Whatever hangs, the
        kernel ends us when all that should have taken is over.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain)
            async for _ in signals:
                if self.last_call.is_set():
                    self.hurry.cancel()
                elif self.wished.is_set():
                    self._patience.cancel()
                is_hurry = self.wished.is_set()
                drain = _LAST_PATIENCE if is_hurry else self.drain_timeout + _UNDEAD
                end_within(drain + self.grace)
                self.begin()

    async def _drain(self) -> None:
        await self.wished.wait()
        with self._patience:
            await trio.sleep_forever()
        self.last_call.set()
        self.hurry.deadline = trio.current_time() + _LAST_WORDS

    def begin(self) -> None:
        """Begin the drain, if that was not done yet."""
        if self.wished.is_set():
            return
        log.info("stopping: running answers may take %g s", self.drain_timeout)
        self._notifier.tell("STOPPING=1", "STATUS=running answers finish")
        self.wished.set()
        self._patience.deadline = trio.current_time() + self.drain_timeout


def end_within(seconds: float) -> None:
    """Have the kernel end us then, whatever hangs: it needs no thread and no turn of ours.

    What is left behind is swept by the next start; children end with their stdin.
    """
    if math.isfinite(seconds):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def cache_folder(config: Config) -> Path:
    """Where downloads and the demo model lie."""
    if config.folders.cache == "auto":
        return platformdirs.user_cache_path("llamasup")
    return config.folders.cache


def run_base(config: Config, environ: Mapping[str, str]) -> Path:
    """Where each llamasup has a folder of its own for its sockets."""
    return default_base(environ) if config.folders.run == "auto" else config.folders.run


def state_file(config: Config) -> Path:
    """Where what was learned lies."""
    folder = config.folders.state
    return (platformdirs.user_state_path("llamasup") if folder == "auto" else folder) / "state.json"


def with_demo(config: Config, cache: Path) -> Config:
    """`config`, with the demo model if it has none, and nowhere to find any.

    Raises OperatorError if that cannot be.
    """
    if config.models or config.discover.folders:
        return config
    demo = ModelSettings(path=ensure_demo(cache), context_size=_CONTEXT_OF_THE_DEMO)
    return attrs.evolve(config, models={DEMO: demo})


async def _serve(
    in_effect: InEffect,
    prepare: Callable[[Config], Config],
    follower: Follower,
    launcher: Launcher,
    journal: Journal,
    run_folder: RunFolder,
    listeners: Listeners,
    stop: Stop,
    notifier: Notifier,
    announce: Announce,
) -> None:
    config = in_effect.config
    async with trio.open_nursery() as children:
        running = await open_pool(in_effect, launcher, journal, children)
        pool, roster = running.pool, running.roster
        app = ControlApp(running, pool, roster, launcher, started=time.time())
        control = ControlServer(app, run_folder.control_socket)
        await children.start(control.run)

        def move() -> None:
            control.move(run_folder.control_socket)
            for keeper in pool.keepers.values():
                keeper.lose_address()

        children.start_soon(tending.again, "who looks after the run folder", run_folder.keep, move)
        children.start_soon(tending.alone, "a look at the engine", _look_at_engine, launcher)
        children.start_soon(tending.again, "who tells systemd", notifier.keep_telling, pool.summary)
        pool.preload(config.pool.preload)
        bodies = Bodies(config.server.body_memory, cache_folder(config) / "bodies")
        desk = Desk(
            config.server,
            config.recovery.max_replays,
            roster,
            pool,
            control,
            bodies,
            journal,
        )
        front = Front(desk, listeners)
        running.serve(front, stop, prepare)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(front.serve)
            notifier.tell("READY=1", f"STATUS={pool.summary()}")
            announce(config, [bound_address(sock) for sock in listeners.sockets], roster.look)
            async with trio.open_nursery() as following:
                following.start_soon(follower.follow, running)
                await stop.wished.wait()
                following.cancel_scope.cancel()
            front.close(stop.last_call)
        children.cancel_scope.cancel()


async def open_pool(
    in_effect: InEffect, launcher: Launcher, journal: Journal, nursery: trio.Nursery
) -> Running:
    """The pool of the models that there are now, and who knows them; nothing is loaded."""
    gauge = Gauge(launcher.machine)
    state = await _state(state_file(in_effect.config))
    needs = Needs(launcher, state, gauge)
    running = Running(
        in_effect, launcher, state, needs, Pool((), in_effect, gauge, journal, nursery), nursery
    )
    await running.roster.refresh()
    return running


async def _state(file: Path) -> State:
    """What was learned. Raises OperatorError if its disk does not answer."""
    try:
        return await threads.run(State, file, patience=_PATIENCE)
    except OSError as error:
        raise OperatorError(
            f"{file} cannot be read: {error.strerror}; set folders.state to another folder"
        ) from error


async def _look_at_engine(launcher: Launcher) -> None:
    """Report an unusable engine at the start, not only to the first client."""
    try:
        await launcher.engine.now()
    except LlamasupError as error:
        log.error("%s", error)

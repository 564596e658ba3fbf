"""Opens everything in order, serves until it is told to stop, and closes everything in order.

The architecture page says which task belongs to which.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping

import attrs
import trio

from llamasup import tending, threads
from llamasup.children.launcher import Launcher
from llamasup.config.addresses import Address
from llamasup.config.folders import cache_folder, run_base
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config
from llamasup.config.source import Source
from llamasup.control.app import ControlApp
from llamasup.control.server import ControlServer
from llamasup.endpoints.credentials import with_credentials
from llamasup.engine.locate import is_needed, locate, own_engines
from llamasup.errors import LlamasupError, OperatorError
from llamasup.events import Journal
from llamasup.front.bodies import Bodies
from llamasup.front.desk import Desk
from llamasup.front.server import Front
from llamasup.http.certificate import Certificate, shown_by
from llamasup.http.listeners import Listeners
from llamasup.models.demo import with_demo
from llamasup.models.headers import Headers
from llamasup.models.library import Look
from llamasup.narrator import HEARD, narrate
from llamasup.pid1 import reap_orphans
from llamasup.pool.opening import open_pool
from llamasup.pool.pool import Pool
from llamasup.processes.orphans import sweep
from llamasup.processes.run_folder import RunFolder, own_run_folder
from llamasup.reload import Follower
from llamasup.running import Prepare, Running
from llamasup.stop import Stop
from llamasup.systemd import Notifier
from llamasup.terminal import Terminal

log = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds for which the disks of the engine and the demo model are waited for."""

Announce = Callable[[Config, list[Address], Look], None]
"""Called once, as soon as requests are accepted, with the models that there are then."""


@attrs.frozen
class Opened:
    """What is opened before the first child and the first client, and closed after the last."""

    in_effect: InEffect
    prepare: Prepare
    launcher: Launcher
    run_folder: RunFolder
    listeners: Listeners
    certificate: Certificate
    follower: Follower
    journal: Journal
    stop: Stop
    notifier: Notifier


async def serve(
    config: Config, source: Source, environ: Mapping[str, str], announce: Announce
) -> None:
    """Serve until SIGINT or SIGTERM, then drain: running answers get `drain_timeout`.

    A second signal ends them. At a SIGHUP, or when the file has changed, `config` is loaded again
    from `source`; but the SIGHUP of a terminal that is closed is a signal to stop. If llamasup
    cannot serve, OperatorError or EngineUnusable is raised before anything was started. If this is
    cancelled, it stops the children before it returns.
    """
    cache = cache_folder(config)

    def prepare(config: Config) -> Config:
        if is_needed(config):
            locate(config.engine.command, environ, cache)
        for name, command in own_engines(config):
            locate(command, environ, cache, f"models.{name}.engine")
        return with_demo(with_credentials(config, environ), cache)

    in_effect = InEffect(await _prepared(prepare, config))
    journal = Journal()
    certificate = Certificate(await shown_by(config.server), journal)
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
        stop = Stop(in_effect, notifier)
        opened = Opened(
            in_effect,
            prepare,
            Launcher(in_effect, environ, cache, run_folder),
            run_folder,
            listeners,
            certificate,
            Follower(source, terminal.reloads(hangups, stop.begin), notifier, journal),
            journal,
            stop,
            notifier,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.heed, signals)
            if os.getpid() == 1:
                nursery.start_soon(tending.again, "the reaper of orphans", reap_orphans)
            with stop.hurry:
                await sweep(left, config.recovery.leftover_patience)
                await _serve(opened, announce)
            nursery.cancel_scope.cancel()


async def _serve(opened: Opened, announce: Announce) -> None:
    in_effect, launcher, notifier = opened.in_effect, opened.launcher, opened.notifier
    config, journal, stop = in_effect.config, opened.journal, opened.stop
    async with trio.open_nursery() as children:
        headers = Headers()
        pool, roster = await open_pool(in_effect, launcher, headers, journal, children)
        control = ControlServer(opened.run_folder.control_socket)
        bodies = Bodies(config.server.max_buffered, cache_folder(config) / "bodies")
        desk = Desk(in_effect, roster, pool, control, bodies, journal)
        certificate = opened.certificate
        front = Front(desk, opened.listeners, certificate)
        running = Running(in_effect, opened.prepare, pool, roster, front, certificate)
        app = ControlApp(
            running, pool, roster, launcher, headers, journal, time.time(), stop.wished
        )
        await children.start(control.run, app)
        children.start_soon(_keep_run_folder, opened.run_folder, control, pool)
        if is_needed(config):
            children.start_soon(tending.alone, "a look at the engine", _look_at_engine, launcher)
        children.start_soon(
            tending.again, "the notifier of systemd", notifier.keep_telling, pool.summary
        )
        pool.outside.fleet.follow(config.endpoints)
        pool.preload(config.pool.preload)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(front.serve)
            notifier.tell("READY=1", f"STATUS={pool.summary()}")
            announce(config, [each.address for each in opened.listeners], roster.look)
            async with trio.open_nursery() as following:
                following.start_soon(
                    tending.again,
                    "the watch over the certificate",
                    certificate.follow,
                    in_effect,
                )
                following.start_soon(opened.follower.follow, running)
                await stop.wished.wait()
                following.cancel_scope.cancel()
            front.close(stop.last_call)
        children.cancel_scope.cancel()


async def _prepared(prepare: Prepare, config: Config) -> Config:
    """What `prepare` returns. Raises what it raises, and OperatorError if a disk does not
    answer."""
    try:
        return await threads.run(prepare, config, patience=_PATIENCE)
    except OSError as error:
        raise OperatorError(f"the engine cannot be looked for: {error.strerror}") from error


async def _keep_run_folder(run_folder: RunFolder, control: ControlServer, pool: Pool) -> None:
    """Make the run folder anew whenever it is removed; its sockets are lost then."""

    def move() -> None:
        control.move(run_folder.control_socket)
        for keeper in pool.keepers.values():
            keeper.lose_address()

    await tending.again("the watch over the run folder", run_folder.keep, move)


async def _look_at_engine(launcher: Launcher) -> None:
    """Report an unusable engine at the start, not only to the first client."""
    try:
        await launcher.engines.common.now()
    except LlamasupError as error:
        log.error("%s", error)

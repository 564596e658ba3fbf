"""`llamasup models`: what every model needs, and how much of it fits into memory now.

If a llamasup serves already, it is asked, because it knows what is loaded. Otherwise this command
looks at the models as `serve` does, and loads none.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from typing import Any

import trio

from llamasup.children.launcher import Launcher
from llamasup.cli import options
from llamasup.cli.table import lines_of
from llamasup.config.addresses import Address, UnixAddress, from_here, parse_address
from llamasup.config.folders import cache_folder, run_base
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config
from llamasup.control.model_fits import document
from llamasup.engine.locate import is_needed, locate
from llamasup.events import Journal
from llamasup.http import tls
from llamasup.models.demo import with_demo
from llamasup.models.headers import Headers
from llamasup.pool.fits import TIME_TO_ASK, survey
from llamasup.pool.opening import open_pool
from llamasup.processes.orphans import sweep
from llamasup.processes.run_folder import own_run_folder

_PATIENCE = TIME_TO_ASK + 15
_INTERRUPTED = 130
_REFUSALS = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
_HEADINGS = ("MODEL", "FILE", "SIZE", "TRAINED", "NEEDS", "SOURCE", "FITS NOW", "")

Fits = dict[str, Any]
"""What `/modelFits` says."""


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "models",
        help="show what every model needs, and what fits now",
        description="Show what every model on this machine needs, and what fits now. If llamasup"
        " serves at server.listen, it is asked; otherwise the models' files are read.",
    )
    options.add_to(parser)
    parser.add_argument(
        "--json", action="store_true", help="all of it as JSON, as /modelFits gives it"
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print one line for each model. Returns 0, whether or not they fit."""
    source = options.source(parsed)
    config, file = source.load(), source.file
    address, fits = ask_serving(config)
    served_by = None if fits is None else str(address)
    whence = f"as the llamasup on {address} says"
    if fits is None:
        whence = f"by {file or 'the defaults'}; "
        whence += (
            f"{address} tells only operators what is loaded" if address else "nothing is loaded"
        )
        fits = trio.run(look, config, os.environ)
    if fits is None:
        return _INTERRUPTED
    if parsed.json:
        print(json.dumps({"served_by": served_by, **fits}, indent=1))
        return 0
    print(f"{_free(fits)} for models, {whence}\n")
    print("\n".join(lines_of([_HEADINGS, *map(row, fits["models"])])))
    return 0


def ask_serving(config: Config) -> tuple[Address | None, Fits | None]:
    """The llamasup that serves at one of the configured addresses, if there is one, and its answer,
    if it gives one: where there are keys, it takes an operator's, and none is sent to whoever
    listens there."""
    refusing = None
    for address in map(from_here, map(parse_address, config.server.listen)):
        with closing(_connection(address)) as connection:
            try:
                connection.request("GET", "/modelFits")
                reply = connection.getresponse()
                fits = json.load(reply)
            except (OSError, http.client.HTTPException, ValueError):
                continue
        if reply.status == http.HTTPStatus.OK and isinstance(fits, dict) and "models" in fits:
            return address, fits
        if reply.status in _REFUSALS and reply.getheader("X-Request-ID"):
            refusing = address
    return refusing, None


def _connection(address: Address) -> http.client.HTTPConnection:
    if isinstance(address, UnixAddress):
        return _UnixConnection(address)
    if address.secure:
        return http.client.HTTPSConnection(
            address.host, address.port, timeout=_PATIENCE, context=tls.trusting_anybody()
        )
    return http.client.HTTPConnection(address.host, address.port, timeout=_PATIENCE)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which Python's own library does not offer."""

    def __init__(self, address: UnixAddress) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = address.path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


async def look(config: Config, environ: Mapping[str, str]) -> Fits | None:
    """What fits while nothing is loaded. Raises EngineUnusable and OperatorError.

    None if a signal ended this. In any case no engine is left running.
    """
    cache = cache_folder(config)
    if is_needed(config):
        locate(config.engine.command, environ, cache)
    in_effect = InEffect(with_demo(config, cache))
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        own_run_folder(run_base(config, environ)) as (run_folder, left),
    ):
        fits = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_give_up, signals, nursery.cancel_scope)
            await sweep(left)
            launcher = Launcher(in_effect, environ, cache, run_folder)
            pool, _ = await open_pool(in_effect, launcher, Headers(), Journal(), nursery)
            fits = document(await survey(pool))
            nursery.cancel_scope.cancel()
    return fits


async def _give_up(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


def row(model: Fits) -> tuple[str, ...]:
    """A model's cells, in the order of the headings."""
    begins, fits = model["begins"], model["fits"]
    return (
        model["name"],
        (model["path"] or model["program"]).rpartition(os.sep)[2],
        model["size_text"] if model["size"] else "",
        str(model["max_context"] or ""),
        begins["needs_text"],
        begins["source"] or "",
        _context(fits) if fits else "",
        "; ".join(_remarks(model)),
    )


def _remarks(model: Fits) -> Iterator[str]:
    """What the numbers alone do not say."""
    if model["state"] != "unloaded":
        yield model["state"]
    if model["defect"]:
        yield model["defect"]
        return
    begins, best = model["begins"], model["best"]
    yield from _price(begins, "")
    if begins["rung"] != best["rung"]:
        yield f"needed with {begins['rung']}"
        yield from _price(best, f"{best['rung']}: ")


def _price(prospect: Fits, rung: str) -> Iterator[str]:
    if prospect["refused"]:
        yield f"{rung}{prospect['refused']}"
    elif prospect["evicts"]:
        when = " when it has answered" if prospect["waits"] else ""
        yield f"{rung}{', '.join(prospect['evicts'])} would go for it{when}"
    elif prospect["waits"]:
        yield f"{rung}others that load or stop come first"


def _context(rung: Fits) -> str:
    return str(rung["context"] or rung["rung"])


def _free(fits: Fits) -> str:
    return (
        f"{fits['free_text']} free" if fits["free"] else "it is not known how much memory is free"
    )

"""`llamasup ping`: asks endpoints, and llamasup itself, for their models, and says what came.

What still starts or loads is waited for, as a request would wait for it.
"""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import trio
from attrs import frozen

from llamasup.cli import options
from llamasup.cli.table import lines_of
from llamasup.config.addresses import Address, from_here, parse_address, url_of
from llamasup.config.schema import Config, EndpointSettings
from llamasup.endpoints import answers, names
from llamasup.endpoints.credentials import with_credentials
from llamasup.endpoints.instance import Instance
from llamasup.endpoints.probe import question_headers
from llamasup.engine.error_messages import message_of_reply
from llamasup.errors import OperatorError
from llamasup.http import tls
from llamasup.http.question import NoAnswer, ask

OURSELVES: Final = "llamasup"
"""The name by which llamasup itself is asked."""

_PATIENCE: Final = 10.0
_PAUSE: Final = 0.5
_MOST_SHOWN: Final = 5
_NOT_AT_ALL: Final[Any] = 0.0


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "ping",
        help="ask an endpoint, or all of them and llamasup itself, for their models",
        description="Ask an endpoint, or all of them and llamasup itself, for their models. The"
        " exit status is 1 if one does not answer with them. No key is sent to llamasup itself.",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help=f'one endpoint only; "{OURSELVES}" is llamasup itself',
    )
    parser.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="how long to wait for what starts or loads (default: its cold_start_timeout)",
    )
    options.add_to(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print a line for each instance. Returns 0 if all have answered with their models, else 1."""
    if parsed.name and parsed.name.endswith(".toml") and parsed.file is None:
        parsed.name, parsed.file = None, Path(parsed.name)  # a file without a name before it
    config = with_credentials(options.source(parsed).load(), os.environ)
    chosen = [one for one in _targets(config) if parsed.name in (None, one.settings.name)]
    if not chosen:
        known = ", ".join(one.settings.name for one in _targets(config))
        raise OperatorError(f'there is no endpoint "{parsed.name}"; there are: {known}')
    said = trio.run(_ask_all, chosen, parsed.wait)
    print("\n".join(lines_of([one.row for one in said])))
    return 0 if all(one.is_well for one in said) else 1


@frozen
class _Target:
    """What is to be asked."""

    settings: EndpointSettings
    address: Address | None = None
    """Of llamasup itself, which is known without a name."""


@frozen
class Said:
    """What one instance has answered."""

    name: str
    where: str
    is_well: bool
    what: str

    @property
    def row(self) -> tuple[str, ...]:
        """The cells of its line."""
        return self.name, self.where, "ok" if self.is_well else "failed", self.what


def _targets(config: Config) -> Iterator[_Target]:
    for entry in config.endpoints:
        yield _Target(entry)
    for text in config.server.listen:
        address = from_here(parse_address(text))
        settings = EndpointSettings(OURSELVES, url_of(address), cold_start_timeout=_NOT_AT_ALL)
        yield _Target(settings, address)


async def _ask_all(targets: list[_Target], wait: float | None) -> list[Said]:
    said: list[Said] = []
    async with trio.open_nursery() as nursery:
        for target in targets:
            nursery.start_soon(_ask_each, target, wait, said)
    order = [target.settings.name for target in targets]
    return sorted(said, key=lambda one: (order.index(one.name), one.where))


async def _ask_each(target: _Target, wait: float | None, said: list[Said]) -> None:
    """Ask every instance of an endpoint."""
    settings = target.settings
    patience = settings.cold_start_timeout if wait is None else wait
    try:
        trust = _trust(target)
        found = [(target.address,)] if target.address else await _found(settings)
    except OSError as error:
        said.append(Said(settings.name, settings.url, False, error.strerror or str(error)))
        return
    async with trio.open_nursery() as nursery:
        for addresses in found:
            instance = Instance(settings.name, settings, addresses, trust=trust)
            nursery.start_soon(_ask, instance, patience, said)


async def _found(settings: EndpointSettings) -> names.Instances:
    return (await names.look_up(Instance(settings.name, settings, ()).url)).instances


def _trust(target: _Target) -> ssl.SSLContext | None:
    settings = target.settings
    if not settings.url.removeprefix("dns+").startswith("https:"):
        return None
    if target.address is not None:
        return tls.trusting_anybody()
    return tls.trusting(None if settings.ca_file == "none" else settings.ca_file)


async def _ask(instance: Instance, patience: float, said: list[Said]) -> None:
    """Ask one instance, again and again while it starts or loads."""
    where = str(instance.addresses[0])
    until = trio.current_time() + patience
    while True:
        began = trio.current_time()
        status, what = await _answer(instance)
        took = round((trio.current_time() - began) * 1000)
        if status not in (0, 503) or trio.current_time() + _PAUSE > until:
            said.append(Said(instance.name, where, status == 200, f"{what} ({took} ms)"))
            return
        await trio.sleep(_PAUSE)


async def _answer(instance: Instance) -> tuple[int, str]:
    """The status of its answer, 0 for none, and what came in words."""
    try:
        with trio.fail_after(_PATIENCE):
            with await instance.connect() as wire:
                target = f"{instance.url.path}/v1/models"
                status, body = await ask(wire, target, question_headers(instance, ""))
    except trio.TooSlowError:
        return 0, f"no answer within {_PATIENCE:g} s"
    except (OSError, NoAnswer) as error:
        return 0, (isinstance(error, OSError) and error.strerror) or str(error)
    ids = answers.model_ids(body) if status == 200 else None
    if ids is None:
        return status if status != 200 else -1, f"{status} {message_of_reply(body)[:200]}"
    more = f" and {len(ids) - _MOST_SHOWN} more" if len(ids) > _MOST_SHOWN else ""
    count = "1 model" if len(ids) == 1 else f"{len(ids)} models"
    return 200, f"{count}: {', '.join(ids[:_MOST_SHOWN])}{more}" if ids else "no models"

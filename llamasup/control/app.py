"""The control app: what llamasup says about itself, as ASGI.

The front relays requests to it as to any child, so there is only one port.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qs

import msgspec
import trio
from attrs import define, field

from llamasup import __version__, threads
from llamasup.access import pages
from llamasup.access.keyring import EVERYTHING, NOTHING, demand_use, may_use
from llamasup.access.keys import Tries, header
from llamasup.apis.dialects import dialect_at
from llamasup.children.keeper import Keeper
from llamasup.children.launcher import Launcher
from llamasup.config.schema import Config, KeySettings
from llamasup.control import model_fits, posted
from llamasup.control.ollama import OllamaPages
from llamasup.errors import (
    ClientError,
    EngineUnusable,
    Forbidden,
    LlamasupError,
    OperatorError,
    Shortage,
    Unauthorized,
)
from llamasup.events import By, ConfigurationChanged, Journal
from llamasup.http.requests import CLIENT, KEY
from llamasup.http.retrying import advice
from llamasup.memory.host import anonymous_memory
from llamasup.models.headers import Headers
from llamasup.models.names import Choice
from llamasup.pool.fits import survey
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster
from llamasup.shortages import is_shortage

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_NOT_WRITTEN: Final = (
    "it is not written to any file: the next change of the configuration's file, a SIGHUP or a"
    " restart of llamasup replaces it"
)


class Configured(Protocol):
    """The configuration, as control sees it."""

    @property
    def config(self) -> Config:
        """The configuration in effect."""

    async def change(self, made: Callable[[Config], Config]) -> None:
        """Call `made` with the configuration in effect, and put what it returns into effect. Raises
        OperatorError, EngineUnusable and what `made` raises; then nothing has changed."""


_NO_FITS: Final = (-math.inf, None)


@define
class ControlApp:
    """`/health`, `/v1/models` and each of them, `/modelFits`, `/api/…`, `/config`."""

    running: Configured
    pool: Pool
    roster: Roster
    launcher: Launcher
    headers: Headers
    journal: Journal
    started: float
    _surveying: trio.Lock = field(factory=trio.Lock, init=False)
    _fits: tuple[float, object] = field(default=_NO_FITS, init=False)
    """When the last survey began, and its result."""

    _tries: Tries = field(factory=Tries, init=False)
    _ollama: OllamaPages = field(init=False)

    @_ollama.default
    def _own_ollama_pages(self) -> OllamaPages:
        return OllamaPages(self.pool, self.roster, self.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or Hypercorn's messages about its start and end."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        try:
            with _shortages_told():
                status, document = await self._answer(scope, receive)
        except LlamasupError as error:
            again = advice(error.retry_after, header(scope["headers"], b"x-request-id"))
            dialect = dialect_at(scope["path"].encode(errors="replace"))
            await _reply(send, error.status, dialect.error_body(error), again)
        else:
            await _reply(send, status, document)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, object]:
        if self._ollama.has(scope["path"]):
            accepted, body = header(scope["headers"], b"accept"), await _body(receive)
            return 200, await self._ollama.answer(scope["path"], accepted, body, self._key(scope))
        match path := scope["path"].removeprefix("/v1"):
            case "/health":
                return 200, self.health()
            case "/models":
                return 200, await self.models(self._key(scope))
            case str() if path.startswith("/models/"):
                return 200, await self.model(path.removeprefix("/models/"), self._key(scope))
        return await self._answer_operator(path, scope, receive)

    async def _answer_operator(
        self, path: str, scope: Scope, receive: Receive
    ) -> tuple[int, object]:
        """Answer what only operators may see. All web pages are refused, and unknown hosts."""
        body = await _body(receive)
        pages.refuse_web_pages(scope["headers"])
        pages.refuse_foreign_hosts(scope["headers"], self.running.config.server)
        if self.running.config.keys:
            self._demand_operator(scope, self.running.config)
        match path:
            case "/modelFits":
                return 200, await self.model_fits()
            case "/api/status":
                return 200, await self.status()
            case "/api/restart":
                return await self.restart(scope)
            case "/config":
                return await self.configuration(scope, body)
        return 404, _error("not_found", "there is no such page")

    def health(self) -> object:
        """That llamasup lives, and which models are loaded; where there are keys, that is not for
        everybody."""
        if self.running.config.keys:
            return {"status": "ok"}
        loaded = [name for name, keeper in self.pool.keepers.items() if keeper.child]
        return {"status": "ok", "loaded_models": loaded}

    async def models(self, key: KeySettings) -> object:
        """The models that exist now, as OpenAI lists them: those that this key may use."""
        await self.roster.refresh()
        listed = self.roster.look.names.listed.values()
        allowed = [choice for choice in listed if may_use(key, choice.model, choice.name)]
        return {"object": "list", "data": await self._described(allowed)}

    async def model(self, name: str, key: KeySettings) -> object:
        """One model's entry in the listing. Raises ModelNotFound, and ModelForbidden if it is not
        for this key."""
        choice = await self.roster.named(name)
        demand_use(key, choice.model, choice.name)
        [described] = await self._described([choice])
        return described

    async def model_fits(self) -> object:
        """What every model needs, and what there is room for. Raises EngineUnusable."""
        asked_at = trio.current_time()
        await self.roster.refresh()
        async with self._surveying:
            # A survey of thousands of models takes seconds, so requests share one that began after
            # they came.
            begun_at, fits = self._fits
            if begun_at < asked_at:
                begun_at, fits = trio.current_time(), await self._survey()
                self._fits = begun_at, fits
            if not self._surveying.statistics().tasks_waiting:
                self._fits = _NO_FITS  # it may be a megabyte
        return fits

    async def _survey(self) -> object:
        surveyed = await survey(self.pool)
        entries = await _one_by_one(_let_go(surveyed.fits), model_fits.entry)
        return model_fits.opening(surveyed) | {"models": entries}

    async def _described(self, choices: Sequence[Choice]) -> list[object]:
        keepers = self.pool.keepers
        there = [(choice, keepers[choice.model]) for choice in choices]
        files = [keeper.plan.path for _, keeper in there if keeper.plan.path]
        trained = await self.headers.trained_contexts(files)
        return await _one_by_one(there, lambda one: self._entry(*one, trained))

    def _entry(self, choice: Choice, keeper: Keeper, contexts: Mapping[Path, int]) -> object:
        trained = contexts.get(keeper.plan.path) if keeper.plan.path else None
        loaded_on = keeper.rung if keeper.child else None
        return {
            "id": choice.name,
            "object": "model",
            "created": int(self.started),
            "owned_by": "llamasup",
            "aliases": list(choice.aliases),
            "status": {"value": keeper.state.shown},
            "source": "configured" if keeper.model in self.running.config.models else "discovered",
            "context": loaded_on and loaded_on.context,
            "max_context": trained,
            "meta": trained and {"n_ctx_train": trained},
        }

    async def restart(self, scope: Scope) -> tuple[int, object]:
        """Start a new child for a model, even if it was given up: `?model=NAME`.

        If there is an admin key, the request needs it. Raises Unauthorized and TooManyTries, and
        ModelNotFound or ClientError for a name that means no model.
        """
        self._demand_operator(scope, self.running.config)
        query = parse_qs(scope["query_string"].decode("latin-1"), encoding="utf-8")
        asked = query.get("model", [""])[0]
        if not asked:
            raise ClientError("name a model: POST /api/restart?model=NAME")
        model = (await self.roster.named(asked)).model
        keeper = self.pool.keepers[model]
        keeper.restart()
        return 200, {"model": model, "state": keeper.state.shown}

    async def configuration(self, scope: Scope, body: bytes) -> tuple[int, object]:
        """The configuration in effect. A POST puts another one into effect, but writes no file.

        Raises Forbidden, Unauthorized and TooManyTries.
        """
        self._demand_operator(scope, self.running.config)
        if scope["method"] != "POST":
            return 200, posted.shown(self.running.config)
        try:
            content_type = header(scope["headers"], b"content-type")
            # TOML can be written so that parsing it takes seconds.
            tables = await threads.run(posted.tables, body, content_type)

            def changed(running: Config) -> Config:
                """Called when no other change is being made. The key may have changed by then."""
                self._demand_operator(scope, running)
                if not (running.server.admin_key or running.keys):
                    raise Forbidden("this takes an operator's key; write one as server.admin_key")
                return posted.read(tables, running)

            await self.running.change(changed)
        except (OperatorError, EngineUnusable) as error:
            return 400, _error("invalid_configuration", str(error))
        self.journal.tell(ConfigurationChanged(By.OPERATOR))
        return 200, {"status": "in effect", "note": _NOT_WRITTEN}

    def _key(self, scope: Scope) -> KeySettings:
        """What the key of this request may do. The front knows whose it is."""
        keys = self.running.config.keys
        return keys.get(_name_of_key(scope), NOTHING if keys else EVERYTHING)

    def _demand_operator(self, scope: Scope, running: Config) -> None:
        """Raise Unauthorized or TooManyTries if this takes an operator's key or the admin key, and
        neither came. The address that a wrong one came from is logged."""
        headers = scope["headers"]
        key = running.keys.get(_name_of_key(scope))
        if key is not None and key.operator:
            return
        if running.keys and not running.server.admin_key:
            raise Unauthorized("this takes a key with operator = true")
        client = header(headers, CLIENT).decode("latin-1")
        try:
            self._tries.demand_key(headers, running.server.admin_key, client, trio.current_time())
        except ClientError as error:
            if header(headers, b"authorization"):
                log.warning("a wrong operator's key came from %s: %s", client, error)
            raise

    async def status(self) -> object:
        """What an operator wants to know first."""
        engine = self.launcher.engines.common.last
        return {
            "version": __version__,
            "uptime_seconds": round(time.time() - self.started, 1),
            "engine": engine and {"command": str(engine.program), "version": engine.version},
            "models": await _one_by_one(self.pool.keepers.values(), self._detail),
        }

    def _detail(self, keeper: Keeper) -> object:
        child = keeper.child
        return {
            "name": keeper.model,
            "state": keeper.state.shown,
            "path": keeper.plan.path and str(keeper.plan.path),
            "program": keeper.plan.program or None,
            "loads": keeper.loads,
            "last_failure": keeper.last_failure and str(keeper.last_failure),
            "rungs": [str(rung) for rung in keeper.plan.known_rungs],
            "rung": keeper.rung and str(keeper.rung),
            "waiting": self.pool.waiting(keeper.model),
            "child": child
            and {
                "pid": child.pid,
                "address": str(child.address),
                "memory": anonymous_memory(child.pid) if child.pid else 0,
                "in_flight": child.users,
                "slots": child.slots.size,
                "slots_taken": child.slots.taken,
            },
        }


@contextmanager
def _shortages_told() -> Iterator[None]:
    """Turn a shortage into an error for the client; a disk that does not answer counts as one."""
    try:
        yield
    except OSError as error:
        if not (is_shortage(error) or isinstance(error, TimeoutError)):
            raise
        raise Shortage(f"this cannot be answered now: {error.strerror}") from error


def _name_of_key(scope: Scope) -> str:
    return header(scope["headers"], KEY).decode("latin-1")


async def _live(receive: Receive, send: Send) -> None:
    """Answer Hypercorn's lifespan messages: it fails without answers, though nothing is to open."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": message["type"] + ".complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _body(receive: Receive) -> bytes:
    """Read the whole body: if much of it is left unread, Hypercorn hangs in its reply."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def _error(code: str, message: str) -> object:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


async def _one_by_one(things: Iterable[Thing], told: Callable[[Thing], object]) -> list[object]:
    """An entry for each thing. Other tasks get a turn after each: there may be thousands."""
    entries: list[object] = []
    for thing in things:
        entries.append(msgspec.Raw(_encoded(told(thing))))
        await trio.lowlevel.checkpoint()
    return entries


def _let_go(things: list[Thing]) -> Iterator[Thing]:
    """Yield the things in order, and free each before the next: freeing thousands at once takes
    milliseconds."""
    things.reverse()
    while things:
        yield things.pop()


def _encoded(document: object) -> bytes:
    try:
        return msgspec.json.encode(document)  # ten times faster than json: it may be a megabyte
    except UnicodeEncodeError:  # names of files need not be valid text
        return json.dumps(document, default=lambda raw: json.loads(bytes(raw))).encode()


async def _reply(
    send: Send, status: int, document: object, more: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    is_text = isinstance(document, str)
    body = document.encode() if isinstance(document, str) else _encoded(document)
    kind = b"text/plain; charset=utf-8" if is_text else b"application/json"
    length = b"%d" % len(body)
    headers = [(b"content-type", kind), (b"content-length", length), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

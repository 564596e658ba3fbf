"""The control app: what llamasup says about itself, as ASGI.

The front relays requests to it as to any child, so there is only one port. Which page is meant says
the table of routes; the documents are made in files of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import trio

from llamasup import __version__, threads
from llamasup.access import pages
from llamasup.access.keyring import demand_use
from llamasup.access.rights import Need, need_of_page
from llamasup.apis.anthropic_messages import Messages
from llamasup.apis.dialects import dialect_at
from llamasup.children.launcher import Launcher
from llamasup.config.schema import Config
from llamasup.control import elsewhere, openapi, posted
from llamasup.control.asgi import Question, Receive, Scope, Send, live, one_by_one, question, reply
from llamasup.control.catalogue import Catalogue, standing
from llamasup.control.changes import Changes
from llamasup.control.health import ALIVE, health, readiness
from llamasup.control.listing import Standing, is_for_anthropic
from llamasup.control.ollama import OllamaPages
from llamasup.control.operators import Operators, key_of
from llamasup.control.status import detail
from llamasup.control.surveys import Surveys
from llamasup.engine.locate import is_needed
from llamasup.errors import (
    ClientError,
    EngineUnusable,
    Forbidden,
    LlamasupError,
    ModelUnavailable,
    OperatorError,
    RouteNotFound,
    Shortage,
)
from llamasup.events import By, ConfigurationChanged, Journal
from llamasup.front.table import Goal, Page, rows_at
from llamasup.front.wish_readers import wishes_of
from llamasup.http.retrying import advice
from llamasup.models.headers import Headers
from llamasup.models.names import Choice
from llamasup.pool.offers import Offers
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster
from llamasup.shortages import is_shortage

Answer = tuple[int, object]
"""A status and a document."""

_NOT_WRITTEN: Final = (
    "it is not written to any file: the next change of the configuration's file, a SIGHUP or a"
    " restart of llamasup replaces it"
)
_PATIENCE_WITH_ENGINE: Final = 2.0
_NO_NAME: Final = 'name a model: {"model": "NAME"}'

_FOR_ALL: Final = frozenset(
    {
        *(Page.HEALTH, Page.LIVE, Page.READY, Page.OPENAPI, Page.OLLAMA),
        *(Page.MODELS, Page.MODEL, Page.LOAD, Page.UNLOAD, Page.CHANGES, Page.OFFERS),
    }
)
"""All other pages are for operators alone: web pages are refused there, and unknown hosts."""


class Configured(Protocol):
    """The configuration, as control sees it."""

    @property
    def config(self) -> Config:
        """The configuration in effect."""

    async def change(self, made: Callable[[Config], Config]) -> None:
        """Call `made` with the configuration in effect, and put what it returns into effect. Raises
        OperatorError, EngineUnusable and what `made` raises; then nothing has changed."""


class ControlApp:
    """Has an answer for each `Page`."""

    def __init__(
        self,
        running: Configured,
        pool: Pool,
        roster: Roster,
        launcher: Launcher,
        headers: Headers,
        journal: Journal,
        started: float,
        stopping: trio.Event,
    ) -> None:
        """`started` is a time of the day; `stopping` is set when the drain begins."""
        self._running = running
        self._pool = pool
        self._roster = roster
        self._launcher = launcher
        self._journal = journal
        self._started = started
        self._stopping = stopping
        self._catalogue = Catalogue(lambda: running.config, pool, roster, headers, started)
        self._changes = Changes(journal, self._standing, stopping)
        self._surveys = Surveys(pool, roster)
        self._ollama = OllamaPages(pool, roster, headers)
        self._offers = Offers(pool, stopping)
        self._operators = Operators()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or Hypercorn's messages about its start and end."""
        if scope["type"] == "lifespan":
            await live(receive, send)
            return
        asked = await question(scope, receive)
        for_anthropic = is_for_anthropic(asked.headers)
        try:
            with _shortages_told():
                page = _page(asked)
                if page is Page.CHANGES:
                    await self._changes.follow(
                        lambda: key_of(asked, self._running.config), receive, send
                    )
                    return
                status, document = await self._answer(page, asked, for_anthropic)
        except LlamasupError as error:
            dialect = Messages() if for_anthropic else dialect_at(asked.raw_path)
            again = advice(error.retry_after, asked.header(b"x-request-id"))
            await reply(send, error.status, dialect.error_body(error), again)
        else:
            await reply(send, status, document)

    async def _answer(self, page: Goal, asked: Question, for_anthropic: bool) -> Answer:
        config = self._running.config
        key = key_of(asked, config)
        if page not in _FOR_ALL:
            pages.refuse_web_pages(asked.headers)
            pages.refuse_foreign_hosts(asked.headers, config.server)
        if config.keys and need_of_page(asked.raw_path) is Need.OPERATOR:
            self._operators.demand(asked, config)
        match page:
            case Page.HEALTH:
                return 200, self._health()
            case Page.LIVE:
                return 200, ALIVE
            case Page.READY:
                return readiness(self._stopping.is_set(), await self._engine_fault())
            case Page.MODELS:
                return 200, await self._catalogue.all(key, for_anthropic)
            case Page.MODEL:
                name = asked.path.removeprefix("/v1").removeprefix("/models/")
                return 200, await self._catalogue.one(name, key, for_anthropic)
            case Page.LOAD:
                return await self._load(asked)
            case Page.UNLOAD:
                return await self._unload(asked)
            case Page.FITS:
                return 200, await self._surveys.document()
            case Page.OFFERS:
                return 200, await self._offer(asked)
            case Page.STATUS:
                return 200, await self._status()
            case Page.RESTART:
                return await self._restart(asked)
            case Page.CONFIG:
                self._operators.demand(asked, config)
                return 200, posted.shown(config)
            case Page.NEW_CONFIG:
                return await self._change_configuration(asked)
            case Page.OLLAMA:
                accepted, path = asked.header(b"accept"), asked.path
                return 200, await self._ollama.answer(path, accepted, asked.body, key)
            case Page.OPENAPI:
                return 200, openapi.document(config.server.path_prefixes)
        raise RouteNotFound("there is no such page")

    def _health(self) -> object:
        """That llamasup lives; and how the models stand, unless there are keys: then that is not
        for everybody."""
        if self._running.config.keys:
            return ALIVE
        return health((name, keeper.state) for name, keeper in self._pool.keepers.items())

    def _standing(self, model: str) -> Standing | None:
        keeper = self._pool.keepers.get(model)
        return standing(keeper) if keeper else None

    async def _engine_fault(self) -> str:
        """Why nothing can be served: the engine is unusable, and all that there is needs it. Else
        "", also if its disk is slow to say."""
        if self._pool.outside.fleet.models or not is_needed(self._running.config):
            return ""
        with trio.move_on_after(_PATIENCE_WITH_ENGINE), suppress(ModelUnavailable):
            try:
                await self._launcher.engines.common.now()
            except EngineUnusable as error:
                return str(error)
        return ""

    async def _offer(self, asked: Question) -> object:
        """What another llamasup has to know of this one: `?since=VERSION&wait=SECONDS` waits until
        it is another version. Raises ClientError."""
        try:
            wait = float(asked.asked("wait") or 0)
            since = int(asked.asked("since")) if asked.asked("since") else None
        except ValueError:
            raise ClientError("since and wait are numbers") from None
        if since is None:
            await self._roster.refresh()
        key = key_of(asked, self._running.config)
        asker = asked.header(b"via").decode("latin-1").rpartition(" ")[2]
        return await self._offers.after(since, wait, lambda: self._catalogue.offered(key), asker)

    async def _load(self, asked: Question) -> Answer:
        """Begin to load a model. It needs no admin key: a request would load the model, too."""
        choice = await self._own(_named(asked))
        demand_use(key_of(asked, self._running.config), choice.model, choice.name)
        self._pool.load(choice.model)
        return 200, {"success": True}

    async def _unload(self, asked: Question) -> Answer:
        """Unload a model after its answers. Where there are keys, this takes an operator's."""
        self._operators.demand(asked, self._running.config)
        self._pool.unload((await self._own(_named(asked))).model)
        return 200, {"success": True}

    async def _own(self, name: str) -> Choice:
        """What this name means. Raises ModelNotFound, and ClientError for a model of instances
        elsewhere, which only they can load."""
        choice = await self._roster.named(name)
        if choice.model not in self._pool.keepers:
            raise ClientError(
                f'"{choice.name}" runs on an instance elsewhere: ask that server itself'
            )
        return choice

    async def _restart(self, asked: Question) -> Answer:
        """Start a new child for a model, even if it was given up: `?model=NAME`.

        If there is an admin key, the request needs it. Raises Unauthorized and TooManyTries, and
        ModelNotFound or ClientError for a name that means no model.
        """
        self._operators.demand(asked, self._running.config)
        name = asked.asked("model")
        if not name:
            raise ClientError("name a model: POST /api/restart?model=NAME")
        model = (await self._own(name)).model
        keeper = self._pool.keepers[model]
        keeper.restart()
        return 200, {"model": model, "state": keeper.state.shown}

    async def _change_configuration(self, asked: Question) -> Answer:
        """Put another configuration into effect, but write no file.

        Raises Forbidden, Unauthorized and TooManyTries.
        """
        self._operators.demand(asked, self._running.config)
        try:
            # TOML can be written so that parsing it takes seconds.
            tables = await threads.run(posted.tables, asked.body, asked.header(b"content-type"))

            def changed(running: Config) -> Config:
                """Called when no other change is being made. The key may have changed by then."""
                self._operators.demand(asked, running)
                if not (running.server.admin_key or running.keys):
                    raise Forbidden(
                        "this takes the admin key, and there is none yet: write one as"
                        " server.admin_key into llamasup.toml"
                    )
                return posted.read(tables, running)

            await self._running.change(changed)
        except (OperatorError, EngineUnusable) as error:
            return 400, _error("invalid_configuration", str(error))
        self._journal.tell(ConfigurationChanged(By.OPERATOR))
        return 200, {"status": "in effect", "note": _NOT_WRITTEN}

    async def _status(self) -> object:
        """What an operator wants to know first."""
        engine, pool = self._launcher.engines.common.last, self._pool
        return {
            "version": __version__,
            "uptime_seconds": round(time.time() - self._started, 1),
            "engine": engine and {"command": str(engine.program), "version": engine.version},
            "models": await one_by_one(
                pool.keepers.values(), lambda keeper: detail(keeper, pool.waiting(keeper.model))
            ),
            "endpoints": [elsewhere.endpoint(one) for one in pool.outside.fleet.endpoints],
        }


def _named(asked: Question) -> str:
    """The model that the body names. Raises ClientError."""
    if not asked.body or not (name := wishes_of(asked.body, b"").model):
        raise ClientError(_NO_NAME)
    return name


def _page(asked: Question) -> Goal:
    """The page that a request is for. The front has looked it up before, so there is one."""
    rows = rows_at(asked.raw_path)
    method = asked.method.encode()
    if method not in rows:
        raise RouteNotFound("there is no such page")
    return rows[method].goal


@contextmanager
def _shortages_told() -> Iterator[None]:
    """Turn a shortage into an error for the client; a disk that does not answer counts as one."""
    try:
        yield
    except OSError as error:
        if not (is_shortage(error) or isinstance(error, TimeoutError)):
            raise
        raise Shortage(f"this cannot be answered now: {error.strerror}") from error


def _error(code: str, message: str) -> object:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}

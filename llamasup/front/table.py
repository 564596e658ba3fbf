"""The table of routes: every path and method that is answered, by whom, and what it is for. Pure.

`routes` finds a request's row, `control.app` has an answer for each page, and `control.openapi`
publishes the table. The paths of engines come from their dialects (`apis`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Final

from attrs import frozen

from llamasup.apis.dialects import ENGINES, TRANSLATED
from llamasup.apis.llama_cpp import ONE_SLOT
from llamasup.apis.ollama import Ollama
from llamasup.pool.work import Work


class Page(Enum):
    """What control answers."""

    HEALTH = "health"
    LIVE = "live"
    READY = "ready"
    MODELS = "models"
    MODEL = "model"
    LOAD = "load"
    UNLOAD = "unload"
    CHANGES = "changes"
    FITS = "fits"
    OFFERS = "offers"
    STATUS = "status"
    RESTART = "restart"
    CONFIG = "config"
    NEW_CONFIG = "new config"
    OPENAPI = "openapi"
    OLLAMA = "ollama"


class Whole(Enum):
    """Where not the path decides what a request is, but the rest of it."""

    ENGINE = "engine"
    """All that a model's engine answers: the path begins with the model's name."""


Goal = Work | Page | Whole

READ: Final = (b"GET", b"HEAD")
WRITE: Final = (b"POST",)
UPSTREAM: Final = b"/upstream/"
"""A model's name follows this, and then whatever its engine answers."""

ANY: Final = (*READ, *WRITE, b"PUT", b"PATCH", b"DELETE")


@frozen
class Route:
    """One row of the table."""

    path: bytes
    """The path, with parts that vary in braces; any of them may be followed by a slash."""

    methods: tuple[bytes, ...]
    goal: Goal
    about: str
    """What it is for, in words for clients."""

    streams: bool = False
    """Is the answer a stream if the request's body says `"stream": true`?"""

    prefix: bytes = b""
    """What an engine needs before the path: it knows only the longer form."""

    lasts: bool = False
    """Does the answer go on until its client leaves?"""

    translator: Ollama | None = None
    """Who puts the request into an engine's words, if no engine speaks its dialect. It also says
    whether the answer is a stream."""


_VARYING: Final = {b"{slot}": rb"[0-9]{1,6}", b"{model}": rb".+", b"{path}": rb".+"}


def _table() -> Iterator[Route]:
    yield from _of_dialects()
    yield Route(ONE_SLOT + b"{slot}", WRITE, Work.ASK, "Save, restore or erase a slot's cache")
    about = "Streams that go on without their client, as llama-server's own pages ask for them"
    yield Route(b"/v1/streams/lookup", WRITE, Work.LOOK, about)
    yield Route(b"/v1/stream", (*READ, b"DELETE"), Work.LOOK, about)
    for media in (b"audio", b"images"):
        for path, prefix in ((b"/v1/%b/{path}", b""), (b"/%b/{path}", b"/v1")):
            named = path % media
            what = f"Anything else about {media.decode()}, for servers that know it"
            yield Route(named, WRITE, Work.GENERATE, what, prefix=prefix)
            yield Route(named, READ, Work.LOOK, what, prefix=prefix)
    for translator in TRANSLATED:
        for path in (*translator.stream_paths, *translator.work_paths):
            yield Route(path, WRITE, Work.GENERATE, translator.about, translator=translator)
    yield from _of_control()
    about = "The web pages of a model's engine, and all else that it answers, as it is"
    yield Route(UPSTREAM + b"{model}", ANY, Whole.ENGINE, about)


def _of_dialects() -> Iterator[Route]:
    known = {
        path
        for dialect in ENGINES
        for path in (*dialect.stream_paths, *dialect.work_paths, *dialect.question_paths)
    }
    for dialect in ENGINES:
        rows = (
            (dialect.stream_paths, WRITE, Work.GENERATE),
            (dialect.work_paths, WRITE, Work.GENERATE),
            (dialect.question_paths, WRITE, Work.ASK),
            (dialect.view_paths, READ, Work.LOOK),
        )
        for paths, methods, work in rows:
            streams = paths is dialect.stream_paths
            for path in paths:
                yield Route(path, methods, work, dialect.about, streams)
                short = path.removeprefix(b"/v1")
                if short not in known and short != path:
                    yield Route(short, methods, work, dialect.about, streams, prefix=b"/v1")


_LEFT_TO_OPERATORS: Final = (b"/api/pull", b"/api/push", b"/api/create", b"/api/copy")


def _of_control() -> Iterator[Route]:
    pages: Iterable[tuple[Page, tuple[bytes, ...], tuple[bytes, ...], str]] = (
        (Page.HEALTH, READ, (b"/health", b"/v1/health"), "That llamasup lives, and what is loaded"),
        (Page.LIVE, READ, (b"/livez",), "That llamasup lives"),
        (Page.READY, READ, (b"/readyz",), "Whether anything can be served: 503 if not, with why"),
        (Page.MODELS, READ, (b"/models", b"/v1/models"), "All models, with their states"),
        (Page.LOAD, WRITE, (b"/models/load",), "Begin to load a model"),
        (Page.UNLOAD, WRITE, (b"/models/unload",), "Unload a model, after its answers"),
        (Page.CHANGES, READ, (b"/models/sse",), "The changes of all models, as a stream of events"),
        (Page.MODEL, READ, (b"/models/{model}", b"/v1/models/{model}"), "One model"),
        (Page.FITS, READ, (b"/modelFits", b"/v1/modelFits"), "What each model needs, and has"),
        (Page.OFFERS, READ, (b"/api/offers",), "What a llamasup in front of this one has to know"),
        (Page.STATUS, READ, (b"/api/status",), "What operators want to know first"),
        (Page.RESTART, WRITE, (b"/api/restart",), "Start a new engine for a model"),
        (Page.CONFIG, READ, (b"/config",), "The configuration in effect"),
        (Page.NEW_CONFIG, WRITE, (b"/config",), "Put another configuration into effect"),
        (Page.OPENAPI, READ, (b"/openapi.json",), "This table, as OpenAPI"),
        (Page.OLLAMA, READ, (b"/",), "That llamasup lives, for Ollama's clients"),
        (Page.OLLAMA, READ, (b"/api/version",), "The version of Ollama whose API this is"),
        (Page.OLLAMA, READ, (b"/api/tags",), "All models, as Ollama lists them"),
        (Page.OLLAMA, READ, (b"/api/ps",), "The models that are loaded, as Ollama lists them"),
        (Page.OLLAMA, WRITE, (b"/api/show",), "What one model can do, as Ollama says it"),
        (Page.OLLAMA, WRITE, _LEFT_TO_OPERATORS, "Refused: it says what to do here instead"),
        (Page.OLLAMA, (b"DELETE",), (b"/api/delete",), "Refused, too"),
    )
    for page, methods, paths, about in pages:
        for path in paths:
            yield Route(path, methods, page, about, lasts=page is Page.CHANGES)


Rows = Mapping[bytes, Route]
"""The rows of one path, by method."""

TABLE: Final = tuple(_table())


def _rows(routes: Iterable[Route]) -> dict[bytes, dict[bytes, Route]]:
    rows: dict[bytes, dict[bytes, Route]] = {}
    for route in routes:
        rows.setdefault(route.path, {}).update(dict.fromkeys(route.methods, route))
    return rows


def _pattern(path: bytes) -> re.Pattern[bytes]:
    parts = re.split(rb"(\{[a-z]+\})", path)
    return re.compile(b"".join(_VARYING.get(part) or re.escape(part) for part in parts))


_BY_PATH: Final[Mapping[bytes, Rows]] = _rows(TABLE)
_BY_PATTERN: Final = [(_pattern(path), rows) for path, rows in _BY_PATH.items() if b"{" in path]
_NOTHING: Final[Rows] = {}


def rows_at(path: bytes) -> Rows:
    """The rows of this path, by method; none if there is nothing.

    A slash at its end makes no difference.
    """
    if rows := _BY_PATH.get(path):
        return rows
    path = path.removesuffix(b"/")
    if rows := _BY_PATH.get(path):
        return rows
    for pattern, rows in _BY_PATTERN:
        if pattern.fullmatch(path):
            return rows
    return _NOTHING

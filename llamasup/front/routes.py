"""Decides where a request goes: to a model's child, or to control.

Paths are matched as they were sent, neither decoded nor normalised; only a slash at their end makes
no difference. A path that is not in the `table` is not found, so no clever spelling reaches a
child.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from attrs import frozen

from llamasup.apis.ollama import Ollama
from llamasup.errors import ClientError, MethodNotAllowed, RouteNotFound
from llamasup.front.table import READ, UPSTREAM, Page, Route, Whole, rows_at
from llamasup.front.wish_readers import Reader, Unread, reader_for, wishes_of
from llamasup.front.wishes import Wishes, model_in_query
from llamasup.http.requests import Request, origin_form
from llamasup.pool.work import Work


@frozen
class ToModel:
    """The request goes to a child of this model (None: the client named none)."""

    model: str | None
    target: bytes
    work: Work
    streams: bool = False
    """Does the client ask for a stream?"""

    translator: Ollama | None = None
    """Who puts the request into an engine's words, if no engine speaks its dialect. It then says,
    too, whether the client asks for a stream."""

    here: bool = False
    """Is an engine of ours meant, and none elsewhere?"""


@frozen
class ToEngine:
    """The request goes to the engine of the model that its path begins with, as it is."""

    path: bytes
    """The path from the model's name on."""

    query: bytes
    """The query with its question mark, if there is one."""


@frozen
class ToControl:
    """The request goes to the control app."""

    target: bytes
    lasts: bool = False
    """Does the answer go on until its client leaves?"""


Target = ToModel | ToEngine | ToControl


_AUTOLOAD = re.compile(rb"(?:^|&)autoload=(?:true|1)(?:&|$)")
"""As in llama-server's router: with this, a request that only looks has the model loaded."""


class Router:
    """The table of routes, with `server.path_prefixes`, which are cut off before it is used."""

    def __init__(self, path_prefixes: Iterable[str] = ()) -> None:
        prefixes = sorted(path_prefixes, key=len, reverse=True)
        self._prefixes = tuple(prefix.rstrip("/").encode() for prefix in prefixes)

    def route(self, request: Request, wishes: Wishes | None = None) -> Target:
        """Where `request` goes; `wishes` are what its body asks for, if that is known already.

        Raises a ClientError for a request that goes nowhere, and for a body that no engine could
        read: such a request must not load a model.
        """
        target = self._strip(origin_form(request.target))
        path, mark, query = target.partition(b"?")
        route = _row(request.method, path)
        goal = route.goal
        if goal is Whole.ENGINE:
            return ToEngine(path.removeprefix(UPSTREAM), mark + query)
        if route.prefix or path.endswith(b"/"):
            target = (route.prefix + path.removesuffix(b"/") or b"/") + mark + query
        if isinstance(goal, Page):
            return ToControl(target, route.lasts)
        wishes = wishes or _wishes(request)
        if query:
            wishes = _completed(wishes, query)
            if goal is Work.LOOK and _AUTOLOAD.search(query):
                goal = Work.ASK
        return ToModel(
            wishes.model, target, goal, wishes.stream and route.streams, route.translator
        )

    def reader(self, request: Request) -> Callable[[], Reader] | None:
        """How to make a reader of a large body, of which only the head is there yet. None if no
        engine would answer the request."""
        try:
            path, _, _ = self._strip(origin_form(request.target)).partition(b"?")
            goal = _row(request.method, path).goal
        except ClientError:
            return None
        if isinstance(goal, Page):
            return None
        if goal is Whole.ENGINE:
            return Unread
        content_type = request.header(b"content-type") or b""
        return lambda: reader_for(content_type)

    def _strip(self, target: bytes) -> bytes:
        for prefix in self._prefixes:
            if target.startswith(prefix + b"/"):
                return target[len(prefix) :]
        return target


def to_own(method: bytes, model: str, path: bytes, query: bytes) -> ToModel:
    """Where a request goes whose path began with the model's name; `path` is what follows.

    What only looks at a child elsewhere does so here, too. What is not known may be work.
    """
    rows = rows_at(path) if path != b"/" else {}  # there, engines have their web page
    goal = rows[method].goal if method in rows else None
    if isinstance(goal, Work):
        work = goal
    elif isinstance(goal, Page) and method in READ:
        work = Work.LOOK
    else:
        work = Work.GENERATE if method == b"POST" else Work.ASK
    if work is Work.LOOK and _AUTOLOAD.search(query.removeprefix(b"?")):
        work = Work.ASK
    return ToModel(model, path + query, work, here=True)


def _row(method: bytes, path: bytes) -> Route:
    rows = rows_at(path)
    if not rows:
        raise RouteNotFound(
            f"there is nothing at {path.decode('latin-1')}; /openapi.json lists what there is,"
            " and /v1/models the models"
        )
    if method not in rows:
        allowed = ", ".join(method.decode() for method in rows)
        raise MethodNotAllowed(
            f"{method.decode('latin-1')} is not answered at {path.decode('latin-1')};"
            f" use {allowed}",
            allowed,
        )
    return rows[method]


def _wishes(request: Request) -> Wishes:
    """What a request asks for in its body."""
    if isinstance(request.body, bytes | bytearray) and request.body:
        return wishes_of(request.body, request.header(b"content-type") or b"")
    return Wishes()


def _completed(wishes: Wishes, query: bytes) -> Wishes:
    """The wishes, with the model of the query's `?model=` if the body names none."""
    if wishes.model is None and b"model=" in query:
        return Wishes(model_in_query(query), wishes.stream)
    return wishes

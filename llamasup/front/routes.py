"""Decides where a request goes: to a model's child, or to control.

The table has every path of every dialect (`apis`), and those that llamasup answers itself. Paths
are matched as they were sent, neither decoded nor normalised. A path that is not in the table is
not found, so no clever spelling reaches a child.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

from attrs import frozen

from llamasup.apis.dialects import DIALECTS
from llamasup.apis.llama_cpp import ONE_SLOT
from llamasup.errors import ClientError, MethodNotAllowed, RouteNotFound
from llamasup.front.wishes import Wishes, model_in_query, wishes_of
from llamasup.http.requests import Request, origin_form
from llamasup.pool.work import Work


@frozen
class ToModel:
    """The request goes to a child of this model (None: the client named none)."""

    model: str | None
    target: bytes
    work: Work
    streams: bool = False
    """Does the client ask for server-sent events?"""


@frozen
class ToControl:
    """The request goes to the control app."""

    target: bytes


Target = ToModel | ToControl

_CONTROL_READS: Final = (
    *(b"/health", b"/v1/health", b"/models", b"/v1/models", b"/modelFits", b"/v1/modelFits"),
    *(b"/api/status", b"/config"),
)
_CONTROL_WRITES: Final = (b"/api/restart", b"/config")

_READ: Final = (b"GET", b"HEAD")
_Methods = dict[bytes, Work | Literal["control"]]


def _table() -> dict[bytes, _Methods]:
    table: dict[bytes, _Methods] = {}

    def add(
        paths: Iterable[bytes], methods: Iterable[bytes], goal: Work | Literal["control"]
    ) -> None:
        for path in paths:
            table.setdefault(path, {}).update(dict.fromkeys(methods, goal))

    for dialect in DIALECTS:
        add(dialect.stream_paths, [b"POST"], Work.GENERATE)
        add(dialect.work_paths, [b"POST"], Work.GENERATE)
        add(dialect.question_paths, [b"POST"], Work.ASK)
        add(dialect.view_paths, _READ, Work.LOOK)
    add(_CONTROL_READS, _READ, "control")
    add(_CONTROL_WRITES, [b"POST"], "control")
    return table


_ROUTES: Final = _table()
_STREAMING: Final = frozenset(path for dialect in DIALECTS for path in dialect.stream_paths)
_PATTERNS: Final[list[tuple[re.Pattern[bytes], _Methods]]] = [
    (re.compile(re.escape(ONE_SLOT) + rb"[0-9]{1,6}"), {b"POST": Work.ASK}),
    (re.compile(rb"(?:/v1)?/models/.+"), {b"GET": "control", b"HEAD": "control"}),
]


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
        path, _, query = target.partition(b"?")
        goal = _goal(request.method, path)
        if goal == "control":
            return ToControl(target)
        wishes = _completed(wishes or _wishes(request), query)
        if goal is Work.LOOK and _AUTOLOAD.search(query):
            goal = Work.ASK
        streams = wishes.stream and path in _STREAMING
        return ToModel(wishes.model, target, goal, streams)

    def is_for_model(self, request: Request) -> bool:
        """Would an engine answer this request? Only its head is needed to tell."""
        try:
            path, _, _ = self._strip(origin_form(request.target)).partition(b"?")
            return _goal(request.method, path) != "control"
        except ClientError:
            return False

    def _strip(self, target: bytes) -> bytes:
        for prefix in self._prefixes:
            if target.startswith(prefix + b"/"):
                return target[len(prefix) :]
        return target


def _goal(method: bytes, path: bytes) -> Work | Literal["control"]:
    methods = _ROUTES.get(path) or _by_pattern(path)
    goal = methods.get(method)
    if goal is None:
        allowed = ", ".join(method.decode() for method in methods)
        raise MethodNotAllowed(
            f"{method.decode('latin-1')} is not answered at {path.decode('latin-1')};"
            f" use {allowed}",
            allowed,
        )
    return goal


def _by_pattern(path: bytes) -> _Methods:
    for pattern, methods in _PATTERNS:
        if pattern.fullmatch(path):
            return methods
    hint = "; try /v1/models or /health" if path == b"/" else ""
    raise RouteNotFound(f"there is nothing at {path.decode('latin-1')}{hint}")


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

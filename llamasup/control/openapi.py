"""`/openapi.json`: the table of routes in the form of OpenAPI 3.1. Pure.

What engines read and answer is told in outline: bodies go to them as they are, and each of them
knows more than can be listed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from llamasup import __version__
from llamasup.front.table import TABLE, WRITE, Page, Route
from llamasup.pool.work import Work

Document = dict[str, Any]

_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_TOML: Final = "application/toml"
_EVENTS: Final = "text/event-stream"

_OBJECT: Final[Document] = {"type": "object"}
_TEXT: Final[Document] = {"type": "string"}
_NAME: Final[Document] = {"type": "string", "minLength": 1, "maxLength": 1024}
_PARTS: Final[dict[str, Document]] = {
    "{slot}": {"type": "integer", "minimum": 0, "maximum": 999_999},
    "{model}": _NAME,
    "{path}": {"type": "string", "minLength": 1},
}
_FORMS: Final = (b"/transcriptions", b"/translations", b"/edits", b"/variations")
"""Paths with these ends take files, so their bodies are forms."""

_FOR_ENGINES: Final[Document] = {
    "type": "object",
    "properties": {"model": {"type": ["string", "null"], "maxLength": 1024}},
    "description": "Goes to the engine as it is; without a model, the default one answers",
}
_STREAMED: Final[Document] = {
    **_FOR_ENGINES,
    "properties": {**_FOR_ENGINES["properties"], "stream": {"type": "boolean"}},
}
_OF_A_MODEL: Final = _OBJECT | {"required": ["model"], "properties": {"model": _NAME}}
_LISTED: Final = _OBJECT | {"required": ["id"], "properties": {"id": _TEXT}}
_DONE: Final = _OBJECT | {"required": ["success"], "properties": {"success": {"const": True}}}
_ALIVE: Final = _OBJECT | {"required": ["status"], "properties": {"status": _TEXT}}

_TAKEN: Final[dict[Page, dict[str, Document]]] = {
    Page.LOAD: {_JSON: _OF_A_MODEL},
    Page.UNLOAD: {_JSON: _OF_A_MODEL},
    Page.NEW_CONFIG: {_JSON: _OBJECT, _TOML: _TEXT},
}
_GIVEN: Final[dict[Page, Document]] = {
    Page.HEALTH: _ALIVE,
    Page.LIVE: _ALIVE,
    Page.READY: _ALIVE,
    Page.MODELS: _OBJECT
    | {"required": ["data"], "properties": {"data": {"type": "array", "items": _LISTED}}},
    Page.MODEL: _LISTED,
    Page.LOAD: _DONE,
    Page.UNLOAD: _DONE,
}
_FAILURES: Final = {
    "4XX": "The request is at fault; the error says what to change",
    "5XX": "It cannot be answered now; the error says what to do",
}


@lru_cache(maxsize=4)
def document(prefixes: tuple[str, ...]) -> Document:
    """The whole document. All paths are there again under each of the `prefixes`."""
    paths: dict[str, Document] = {}
    for route in TABLE:
        operations = paths.setdefault(route.path.decode(), {})
        for method in route.methods:
            operations[method.decode().lower()] = _operation(route, method)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llamasup",
            "version": __version__,
            "description": "Any path may end with a slash.",
        },
        "servers": [{"url": url} for url in ("/", *prefixes)],
        "paths": paths,
    }


def _operation(route: Route, method: bytes) -> Document:
    operation: Document = {
        "operationId": _identifier(route.path, method),
        "summary": route.about,
        "tags": ["llamasup" if isinstance(route.goal, Page) else "engines"],
        "parameters": [*_parts(route.path), *_query(route)],
        "responses": _responses(route, method),
    }
    if method in WRITE and (content := _taken(route)):
        operation["requestBody"] = {"required": True, "content": _contents(content)}
    return operation


def _identifier(path: bytes, method: bytes) -> str:
    words = re.findall(r"[a-zA-Z0-9]+", path.decode())
    return "_".join([method.decode().lower(), *words])


def _parts(path: bytes) -> Iterator[Document]:
    for name, schema in _PARTS.items():
        if name in path.decode():
            yield {"name": name.strip("{}"), "in": "path", "required": True, "schema": schema}


def _query(route: Route) -> Iterator[Document]:
    if route.goal is Work.LOOK:
        yield {"name": "model", "in": "query", "schema": _NAME}
        yield {
            "name": "autoload",
            "in": "query",
            "description": "Only with this, the model is loaded to be looked at",
            "schema": {"type": "boolean"},
        }
    elif route.goal is Page.RESTART:
        yield {"name": "model", "in": "query", "required": True, "schema": _NAME}


def _taken(route: Route) -> dict[str, Document]:
    """What bodies may be, by their types."""
    if isinstance(route.goal, Page):
        return _TAKEN.get(route.goal, {})
    if not isinstance(route.goal, Work):
        return {}
    if route.path.endswith(_FORMS):
        return {_FORM: _FOR_ENGINES}
    return {_JSON: _STREAMED if route.streams else _FOR_ENGINES}


def _responses(route: Route, method: bytes) -> Document:
    failures = {
        status: {"description": words, "content": _contents({_JSON: _OBJECT})}
        for status, words in _FAILURES.items()
    }
    answer: Document = {"description": "The answer"}
    if given := _given(route):
        answer["content"] = _contents(given)
    responses = {"200": answer, **failures}
    return {s: _without_body(r) for s, r in responses.items()} if method == b"HEAD" else responses


def _given(route: Route) -> dict[str, Document]:
    """What answers may be, by their types; nothing where engines may answer anything."""
    if route.lasts:
        return {_EVENTS: _TEXT}
    if route.path == b"/":
        return {"text/plain": _TEXT}
    if isinstance(route.goal, Page):
        return {_JSON: _GIVEN.get(route.goal, _OBJECT)}
    if route.streams:
        return {_JSON: {}, _EVENTS: _TEXT}
    return {}


def _contents(schemas: dict[str, Document]) -> Document:
    return {kind: {"schema": schema} for kind, schema in schemas.items()}


def _without_body(response: Document) -> Document:
    return {key: value for key, value in response.items() if key != "content"}

"""What is published is the table of routes, in valid OpenAPI."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llamasup.control.openapi import document
from llamasup.front.table import TABLE, Page, Whole, rows_at
from llamasup.pool.work import Work
from tests.harness import running

Fake = Callable[..., Mapping[str, object]]

TEXTS = (b"/", b"/models/sse")
PUBLISHED: Any = document(())
OPERATIONS = [
    (path, method, operation)
    for path, operations in PUBLISHED["paths"].items()
    for method, operation in operations.items()
]


def test_it_has_every_row_of_the_table_and_nothing_else() -> None:
    rows = {(route.path.decode(), method.decode()) for route in TABLE for method in route.methods}
    assert {(path, method.upper()) for path, method, _ in OPERATIONS} == rows


def test_every_operation_has_a_name_of_its_own() -> None:
    names = Counter(operation["operationId"] for _, _, operation in OPERATIONS)
    assert names.most_common(1)[0][1] == 1


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_an_operation_declares_the_parts_of_its_path_and_its_answers(
    path: str, method: str, operation: Any
) -> None:
    parts = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
    assert [f"{{{part}}}" in path for part in parts] == [True] * path.count("{")
    assert operation["responses"].keys() == {"200", "4XX", "5XX"}
    assert operation["summary"] == rows_at(path.encode())[method.upper().encode()].about
    if method == "head":
        assert not any("content" in answer for answer in operation["responses"].values())


def test_what_engines_are_sent_names_the_model_and_may_be_a_stream() -> None:
    for route in TABLE:
        posted = PUBLISHED["paths"][route.path.decode()].get("post", {})
        if route.goal in (Work.GENERATE, Work.ASK) and posted:
            [schema] = [one["schema"] for one in posted["requestBody"]["content"].values()]
            assert "model" in schema["properties"]
            assert ("stream" in schema["properties"]) is route.streams


def test_looks_say_that_they_load_nothing() -> None:
    looks = [route for route in TABLE if route.goal is Work.LOOK and b"GET" in route.methods]
    for route in looks:
        parameters = PUBLISHED["paths"][route.path.decode()]["get"]["parameters"]
        assert [one["name"] for one in parameters][-2:] == ["model", "autoload"]


def test_nothing_is_said_of_what_only_engines_know() -> None:
    assert {route.goal for route in TABLE if isinstance(route.goal, Whole)} == {Whole.ENGINE}
    assert "requestBody" not in PUBLISHED["paths"]["/upstream/{model}"]["post"]
    assert "content" not in PUBLISHED["paths"]["/upstream/{model}"]["get"]["responses"]["200"]


def test_the_prefixes_are_servers() -> None:
    published: Any = document(("/olla/llamacpp", "/x"))
    assert [server["url"] for server in published["servers"]] == ["/", "/olla/llamacpp", "/x"]


async def test_it_is_served_with_the_prefixes_in_effect(faking: Fake) -> None:
    async with running({**faking(), "server.path_prefixes": ["/p"]}) as llamasup:
        for path in ("/openapi.json", "/p/openapi.json"):
            reply = await llamasup.ask("GET", path)
            assert reply.status == 200
            assert reply.json() == json.loads(json.dumps(document(("/p",))))


def test_every_page_that_answers_json_has_a_schema_for_it() -> None:
    for route in TABLE:
        if isinstance(route.goal, Page) and b"GET" in route.methods and route.path not in TEXTS:
            answer = PUBLISHED["paths"][route.path.decode()]["get"]["responses"]["200"]
            assert answer["content"]["application/json"]["schema"]["type"] == "object"

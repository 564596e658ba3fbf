"""What `/openapi.json` publishes holds for whatever schemathesis makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from llamasup.front.table import TABLE
from tests.harness import running

Fake = Callable[..., Mapping[str, object]]

_EXAMPLES: Final = 3
_ENDLESS: Final = {route.path.decode() for route in TABLE if route.lasts}
_TELLS_WHY: Final = {501, 503}
"""Not offered here, or not loaded: all other errors of a server would be mistakes of ours."""


def holds(case: Any) -> None:
    """Ask, and compare the answer with what is published."""
    response = case.call(timeout=20)
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    if response.status_code not in _TELLS_WHY:
        checks.append(not_a_server_error)
    case.validate_response(response, checks=checks)
    if response.status_code >= 400 and case.method != "HEAD":
        error = response.json()["error"]
        assert error if isinstance(error, str) else error["message"]


def fuzz(url: str) -> int:
    """Ask everything that is published at this address. Returns how many operations there are."""
    operations = 0
    for found in schemathesis.openapi.from_url(url).get_all_operations():
        operation = found.ok()
        if operation.path not in _ENDLESS:
            asked = given(case=operation.as_strategy())(holds)
            settings(
                max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
            )(asked)()
            operations += 1
    return operations


@pytest.mark.filterwarnings("ignore")  # of schemathesis and what it is made of
async def test_all_that_is_published_is_so(faking: Fake) -> None:
    config = {**faking(), **faking(name="other"), "server.path_prefixes": ["/p"]}
    async with running(config) as llamasup:
        operations = await trio.to_thread.run_sync(partial(fuzz, f"{llamasup.url}/openapi.json"))
        assert operations > 80
        assert (await llamasup.ask("GET", "/livez")).status == 200

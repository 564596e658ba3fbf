"""The table of routes is whole, and each of its rows can be reached."""

from __future__ import annotations

from collections import Counter

import pytest

from llamasup.apis.dialects import DIALECTS
from llamasup.front.table import READ, TABLE, WRITE, Page, Route, Whole, rows_at

each_route = pytest.mark.parametrize("route", TABLE, ids=lambda route: route.path.decode())


def example(route: Route) -> bytes:
    """A path of this row."""
    return route.path.replace(b"{slot}", b"0").replace(b"{model}", b"o/n").replace(b"{path}", b"x")


@each_route
def test_every_row_is_found_by_its_path(route: Route) -> None:
    for path in (example(route), example(route) + b"/"):
        rows = rows_at(path)
        assert [rows[method] for method in route.methods] == [route] * len(route.methods)


def test_no_row_hides_another() -> None:
    seen = Counter((route.path, method) for route in TABLE for method in route.methods)
    assert [key for key, times in seen.items() if times > 1] == []


def test_every_path_of_every_dialect_is_there() -> None:
    for dialect in DIALECTS:
        for path in (*dialect.stream_paths, *dialect.work_paths, *dialect.question_paths):
            assert rows_at(path).keys() >= set(WRITE)
            assert rows_at(path.removeprefix(b"/v1")).keys() >= set(WRITE)
        for path in dialect.view_paths:
            assert rows_at(path).keys() >= set(READ)


def test_every_page_of_control_is_there() -> None:
    assert {route.goal for route in TABLE} >= {*Page, *Whole}


@each_route
def test_every_row_says_what_it_is_for(route: Route) -> None:
    assert route.about
    assert not route.about.endswith(".")


@pytest.mark.parametrize("path", [b"", b"///", b"/v1", b"/v1/", b"/audio/", b"/upstream/"])
def test_elsewhere_there_is_nothing(path: bytes) -> None:
    assert not rows_at(path)

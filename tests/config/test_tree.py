"""Values of several layers, where they come from, and reading what has no shape yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.config.problems import Problem, Unfit
from llamasup.config.tree import Origin, Tree

FILE = Origin("x.toml", Path("/etc"))
FLAG = Origin("flag", Path("/home"))


@pytest.fixture
def tree() -> Tree:
    return Tree({"server": {"listen": ["a", 1, "b"], "head": "c"}, "pool": 3}, FILE)


def test_a_value_is_laid_over_what_was_written(tree: Tree) -> None:
    tree.put(("server", "head"), "d", FLAG)
    tree.put(("models", "x", "path"), "e", FLAG)
    assert tree.get("server", "head") == "d"
    assert tree.table("models") == {"x": {"path": "e"}}
    assert not tree.problems


def test_only_what_was_laid_over_has_another_origin(tree: Tree) -> None:
    tree.put(("server", "head"), "d", FLAG)
    assert tree.origin(("server", "head")) == FLAG
    assert tree.origin(("server", "listen", 0)) == FILE


def test_a_missing_key_belongs_to_the_place_where_its_table_began(tree: Tree) -> None:
    tree.put(("models", "x", "parallel"), 1, FLAG)
    assert tree.origin(("models", "x", "path")) == FLAG


def test_a_value_below_something_that_is_no_table_is_a_problem_of_its_own_origin(
    tree: Tree,
) -> None:
    tree.put(("pool", "preload"), "x", FLAG)
    what = "there is no place for it, pool is not a table"
    assert tree.problems == [Problem("flag", "pool.preload", what, "write a table there")]


def test_a_refusal_becomes_a_problem_where_its_value_was_written(tree: Tree) -> None:
    tree.put(("server", "head"), "d", FLAG)
    tree.refuse((key, Unfit("no", "yes")) for key in (("server", "head"), ("pool",)))
    assert tree.problems == [
        Problem("flag", "server.head", "no", "yes"),
        Problem("x.toml", "pool", "no", "yes"),
    ]


def test_reading_what_is_not_there_or_has_another_shape_fails_never(tree: Tree) -> None:
    assert tree.get("pool", "preload", "x") is None
    assert tree.table("pool") == tree.table("nothing") == {}
    assert tree.texts("pool") == tree.texts("server", "nothing") == []


def test_texts_are_found_one_or_many_with_their_own_keys(tree: Tree) -> None:
    assert tree.texts("server", "head") == [(("server", "head"), "c")]
    assert tree.texts("server", "listen") == [
        (("server", "listen", 0), "a"),
        (("server", "listen", 2), "b"),
    ]

"""Values, keys and choices, as messages name them."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.problems import Key
from llamasup.config.wording import bare_or_quoted, dotted, listed, quoted, shown, suggestion

texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "true"),
        (3, "3"),
        (-(2**63) + 1, "-9223372036854775807"),
        (2**63, "a number of more than 64 bits"),
        (1.5, "1.5"),
        ("a\nb", '"a\\nb"'),
        ("x" * 61, f'"{"x" * 60}…"'),
        ({"a": 1}, "a table"),
        ([1], "a list"),
        ((1,), "a list"),
    ],
)
def test_a_value_is_shown_as_it_was_written_or_as_what_it_is(value: object, name: str) -> None:
    assert shown(value) == name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ((), ""),
        (("server", "listen"), "server.listen"),
        (("models", "qwen2.5", "aliases", 0), 'models."qwen2.5".aliases[0]'),
    ],
)
def test_a_key_is_named_as_toml_writes_it(key: Key, name: str) -> None:
    assert dotted(key) == name


@given(texts)
def test_every_text_and_name_reads_back_from_toml(text: str) -> None:
    assert tomllib.loads(f"{bare_or_quoted(text)} = {quoted(text)}") == {text: text}


@pytest.mark.parametrize(
    ("words", "list_"), [("a", '"a"'), ("ab", '"a" or "b"'), ("abc", '"a", "b" or "c"')]
)
def test_choices_are_listed_as_a_sentence_lists_them(words: str, list_: str) -> None:
    assert listed(words, "or") == list_


def test_the_nearest_name_is_suggested_whatever_its_case() -> None:
    assert suggestion("QWEM", ["gemma", "Qwen"]) == 'did you mean "Qwen"?'


def test_as_many_near_names_are_suggested_as_were_asked_for() -> None:
    known = ["qwen1", "qwen2", "qwen3"]
    assert suggestion("qwen", known, most=2).count("qwen") == 2


def test_all_names_are_told_if_none_is_near() -> None:
    assert suggestion("x", ["b", "a"]) == 'known are "a" and "b"'


def test_a_prefix_that_all_have_makes_none_of_them_near() -> None:
    known = ["LLAMASUP_LOG_LEVEL"]
    assert suggestion("LLAMASUP_LOG_X", known) == 'did you mean "LLAMASUP_LOG_LEVEL"?'
    told = suggestion("LLAMASUP_LOG_X", known, prefix="LLAMASUP_LOG_")
    assert told == 'known are "LLAMASUP_LOG_LEVEL"'

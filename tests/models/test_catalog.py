"""Clients find a model under every name it has, and a refusal helps them to find one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from llamasup.config.schema import ModelSettings
from llamasup.errors import ClientError, ModelNotFound
from llamasup.models.catalog import Catalog


def models(**aliases: list[str]) -> Mapping[str, ModelSettings]:
    return {
        name.replace("_", "-"): ModelSettings(path=Path("x.gguf"), aliases=tuple(names))
        for name, names in aliases.items()
    }


TWO = models(Qwen3_8B=["gpt-4o-mini", "Straße"], mistral=[])


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("Qwen3-8B", "Qwen3-8B"),
        ("qwen3-8b", "Qwen3-8B"),
        ("QWEN3-8B", "Qwen3-8B"),
        ("gpt-4o-mini", "Qwen3-8B"),
        ("GPT-4o-Mini", "Qwen3-8B"),
        ("STRASSE", "Qwen3-8B"),
        ("Mistral", "mistral"),
    ],
)
def test_a_model_answers_to_its_name_and_its_aliases_in_any_case(asked: str, model: str) -> None:
    assert Catalog(TWO).choose(asked) == model


@pytest.mark.parametrize("asked", [None, ""])
def test_without_a_name_the_default_is_meant(asked: str | None) -> None:
    assert Catalog(TWO, "mistral").choose(asked) == "mistral"
    assert Catalog(TWO, "GPT-4o-mini").choose(asked) == "Qwen3-8B"


def test_without_a_name_the_only_model_is_meant() -> None:
    assert Catalog(models(only=["other"])).choose(None) == "only"


def test_an_unknown_name_is_not_the_default() -> None:
    with pytest.raises(ModelNotFound):
        Catalog(models(only=[]), "only").choose("another")


def test_without_a_name_and_with_several_models_the_client_learns_them() -> None:
    with pytest.raises(ClientError) as refusal:
        Catalog(TWO).choose(None)
    assert refusal.value.status == 400
    assert '"Qwen3-8B", "mistral"' in str(refusal.value)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("qwen3-8", 'did you mean "Qwen3-8B"'),
        ("mistrall", 'did you mean "mistral"'),
        ("gpt-4o", 'did you mean "gpt-4o-mini"'),
        ("zzz", 'there are: "Qwen3-8B", "mistral"'),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones_or_all(asked: str, hint: str) -> None:
    with pytest.raises(ModelNotFound) as refusal:
        Catalog(TWO).choose(asked)
    assert refusal.value.status == 404
    assert refusal.value.code == "model_not_found"
    assert f'"{asked}"' in str(refusal.value)
    assert hint in str(refusal.value)


def test_a_name_of_megabytes_is_neither_compared_nor_repeated_whole() -> None:
    started = time.process_time()
    with pytest.raises(ModelNotFound) as refusal:
        Catalog(TWO).choose("qwen" * 2_000_000)
    assert len(str(refusal.value)) < 500
    assert time.process_time() - started < 0.1


def test_without_any_model_the_refusal_says_so() -> None:
    with pytest.raises(ClientError, match="none at all"):
        Catalog({}).choose(None)


def test_a_default_that_is_not_there_is_named_in_the_refusal() -> None:
    with pytest.raises(ModelNotFound, match='there is no model "mistrall"; did you mean "mistral"'):
        Catalog(TWO, "mistrall").choose(None)


def test_models_come_and_go() -> None:
    catalog = Catalog(TWO, "new")
    catalog.adopt(models(new=["newer"]))
    assert [catalog.choose(asked) for asked in ("NEW", "newer", None)] == ["new"] * 3
    with pytest.raises(ModelNotFound, match='there are: "new"'):
        catalog.choose("mistral")
    catalog.adopt(TWO)
    with pytest.raises(ModelNotFound, match='there are: "Qwen3-8B", "mistral"'):
        catalog.choose("new")


def test_of_thousands_of_models_a_refusal_lists_some() -> None:
    many = {f"model-{number}": ModelSettings(path=Path("x.gguf")) for number in range(2000)}
    with pytest.raises(ClientError, match='"model-19" and 1980 more') as refusal:
        Catalog(many).choose(None)
    assert len(str(refusal.value)) < 1000

"""Clients find a model under every name it has, and a refusal helps them to find one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from llamasup.config.schema import ModelSettings
from llamasup.errors import ClientError, ModelNotFound
from llamasup.models.names import Names
from tests.harness import steps


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
    assert Names(TWO).choose(asked).model == model


@pytest.mark.parametrize("asked", [None, ""])
def test_without_a_name_the_default_is_meant(asked: str | None) -> None:
    assert Names(TWO).choose(asked, "mistral").model == "mistral"
    assert Names(TWO).choose(asked, "GPT-4o-mini").model == "Qwen3-8B"


def test_without_a_name_the_only_model_is_meant() -> None:
    assert Names(models(only=["other"])).choose(None).model == "only"


def test_an_unknown_name_is_not_the_default() -> None:
    with pytest.raises(ModelNotFound):
        Names(models(only=[])).choose("another", "only")


def test_without_a_name_and_with_several_models_the_client_learns_them() -> None:
    with pytest.raises(ClientError) as refusal:
        Names(TWO).choose(None)
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
        Names(TWO).choose(asked)
    assert refusal.value.status == 404
    assert refusal.value.code == "model_not_found"
    assert f'"{asked}"' in str(refusal.value)
    assert hint in str(refusal.value)


def test_a_name_of_megabytes_is_neither_compared_nor_repeated_whole() -> None:
    with pytest.raises(ModelNotFound) as refusal:
        Names(TWO).choose("qwen" * 2_000_000)
    assert len(str(refusal.value)) < 500
    assert steps(lambda: refused(Names(TWO), "qwen" * 2_000_000)) < 5000


def refused(names: Names, asked: str) -> None:
    with pytest.raises(ModelNotFound):
        names.choose(asked)


def test_without_any_model_the_refusal_says_so() -> None:
    with pytest.raises(ClientError, match="none at all"):
        Names({}).choose(None)


def test_a_default_that_is_not_there_is_named_in_the_refusal() -> None:
    with pytest.raises(ModelNotFound, match='there is no model "mistrall"; did you mean "mistral"'):
        Names(TWO).choose(None, "mistrall")


def test_only_the_models_that_there_are_can_be_chosen() -> None:
    names = Names(models(new=["newer"]))
    assert [names.choose(asked, "new").model for asked in ("NEW", "newer", None)] == ["new"] * 3
    with pytest.raises(ModelNotFound, match='there are: "new"'):
        names.choose("mistral")
    with pytest.raises(ModelNotFound, match='there are: "Qwen3-8B", "mistral"'):
        Names(TWO).choose("new")


def test_of_thousands_of_models_a_refusal_lists_some() -> None:
    many = {f"model-{number}": ModelSettings(path=Path("x.gguf")) for number in range(2000)}
    with pytest.raises(ClientError, match='"model-19" and 1980 more') as refusal:
        Names(many).choose(None)
    assert len(str(refusal.value)) < 1000


def lying(*paths: str) -> Mapping[str, ModelSettings]:
    """Models in a folder, named after their files."""
    return {Path(path).stem: ModelSettings(path=Path(path)) for path in paths}


@pytest.mark.parametrize(
    "asked",
    [
        "mistral-7b",
        "Mistral-7B",
        "mistral-7b.gguf",
        "mistral-7b.Q4_K_M.gguf",
        "mistral-7b.q4_k_m.GGUF",
    ],
)
def test_a_model_is_found_as_its_file_and_without_its_quantization(asked: str) -> None:
    names = Names(lying("mistral-7b.Q4_K_M.gguf", "mistral-7b-v2.Q4_K_M.gguf"))
    assert names.choose(asked).model == "mistral-7b.Q4_K_M"


def test_a_name_that_could_mean_several_means_none() -> None:
    names = Names(lying("mistral-7b.Q4_K_M.gguf", "mistral-7b.Q8_0.gguf"))
    with pytest.raises(ModelNotFound, match="did you mean") as refusal:
        names.choose("mistral-7b")
    assert '"mistral-7b.Q4_K_M"' in str(refusal.value)
    assert '"mistral-7b.Q8_0"' in str(refusal.value)
    assert names.choose("mistral-7b.Q8_0.gguf").model == "mistral-7b.Q8_0"


def test_exact_names_and_aliases_always_win() -> None:
    both = lying("mistral-7b.Q4_K_M.gguf", "mistral-7b.gguf")
    assert Names(both).choose("mistral-7b").model == "mistral-7b"
    named = {
        **lying("mistral-7b.Q4_K_M.gguf"),
        "big": ModelSettings(path=Path("big.gguf"), aliases=("mistral-7b",)),
    }
    assert Names(named).choose("mistral-7b").model == "big"


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("ann/mistral", "ann/mistral:Q4_K_M"),
        ("mistral-Q4_K_M.gguf", "ann/mistral:Q4_K_M"),
        ("qwen", "folder"),
        ("model", None),
        ("big-Q8_0", "big"),
    ],
)
def test_friendly_names_come_from_names_and_files(asked: str, model: str | None) -> None:
    there = {
        "ann/mistral:Q4_K_M": ModelSettings(path=Path("ann/mistral/mistral-Q4_K_M.gguf")),
        "folder": ModelSettings(path=Path("folder/qwen.Q8_0.gguf")),
        "nothing": ModelSettings(path=Path("nothing/model.gguf")),
        "big": ModelSettings(path=Path("big-Q8_0-00001-of-00002.gguf")),
    }
    if model is None:
        with pytest.raises(ModelNotFound):
            Names(there).choose(asked)
    else:
        assert Names(there).choose(asked).model == model


@pytest.mark.parametrize(
    "asked",
    ["some-moddel-77-7b", "zzz", "q" * 10_000_000, "some-model-" * 9, "\U0001f999" * 100],
    ids=range(5),
)
def test_among_thousands_an_unknown_name_is_refused_in_a_moment(asked: str) -> None:
    names = Names(
        lying(*(f"some-model-{number}-7b-instruct.Q4_K_M.gguf" for number in range(2000)))
    )
    # Half a millisecond, and most of that for the many that are compared by their first letters.
    assert steps(lambda: refused(names, f"3{asked}")) < 30 * 2000


# --- names as some clients write them ---


@pytest.mark.parametrize(
    "asked",
    [
        *("qwen3:latest", "Qwen3:LATEST", "qwen3.gguf", "openai/qwen3", "openai/qwen3:latest"),
        *("openrouter/meta-llama/qwen3", "models/qwen3.gguf"),
    ],
)
def test_a_tag_a_suffix_or_a_providers_prefix_is_passed_over(asked: str) -> None:
    assert Names(models(qwen3=[], other=[])).choose(asked).model == "qwen3"


def test_a_name_that_really_has_a_tag_or_a_prefix_comes_first() -> None:
    there = {
        name: ModelSettings(path=Path(f"{number}.gguf"))
        for number, name in enumerate(("a", "a:latest", "o/a", "o/a:latest"))
    }
    for name in there:
        assert Names(there).choose(name).model == name
    assert Names(there).choose("openai/o/a").model == "o/a"


@pytest.mark.parametrize(
    "asked", ["qwen3/", "/", "qwen3/other", "a/b/c/d/qwen3", "none:latest", "/" * 900]
)
def test_what_is_left_has_to_be_a_name(asked: str) -> None:
    with pytest.raises(ModelNotFound):
        Names(models(qwen3=[])).choose(asked)


@pytest.mark.parametrize(
    ("path", "name", "rest"),
    [
        ("a", "a", ""),
        ("a/", "a", "/"),
        ("A/props", "a", "/props"),
        ("a/b", "a/b", ""),
        ("a/b/c/d", "a/b", "/c/d"),
        ("a%2Fb/c", "a/b", "/c"),
        ("a/x%20y/z", "a", "/x%20y/z"),
        ("a%20c/b", "a c", "/b"),
        ("a:latest/", "a", "/"),
    ],
)
def test_a_path_begins_with_the_longest_name(path: str, name: str, rest: str) -> None:
    there = {
        name: ModelSettings(path=Path(f"{number}.gguf"))
        for number, name in enumerate(("a", "a/b", "a c"))
    }
    found = Names(there).beginning(path)
    assert found is not None
    assert (found[0].model, found[1]) == (name, rest)


@pytest.mark.parametrize("path", ["", "/", "c/a", "openai/a", "a%2", "/a"])
def test_a_path_may_begin_with_no_name(path: str) -> None:
    assert Names(models(a=[])).beginning(path) is None


def test_a_model_that_is_not_listed_is_served_but_not_named_in_refusals() -> None:
    there = {
        "seen": ModelSettings(path=Path("1.gguf")),
        "secret": ModelSettings(path=Path("2.gguf"), aliases=("secretary",), unlisted=True),
    }
    names = Names(there)
    assert names.choose("secret").model == "secret"
    for asked in ("secre", "zzz"):
        with pytest.raises(ModelNotFound) as refusal:
            names.choose(asked)
        assert "secret" not in str(refusal.value)
    with pytest.raises(ClientError) as unnamed:
        names.choose(None)
    assert "secret" not in str(unnamed.value)

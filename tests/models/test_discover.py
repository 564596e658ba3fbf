"""Folders become models: one name each, split files whole, projectors paired, nothing lost."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.models.discover import Discovered, Found, models_in
from tests.harness import steps

HOME = Path("/models")
SNAPSHOT = "models--bartowski--Qwen3-8B-GGUF/snapshots/0123abcd"


def found(*paths: str, folder: Path = HOME) -> list[Found]:
    return [Found(folder, PurePosixPath(path), size=10) for path in paths]


def discovered(*paths: str) -> dict[str, Discovered]:
    return models_in(found(*paths))


def parts(number: int, name: str = "big-Q4_K_M") -> list[str]:
    return [f"{name}-{part:05}-of-{number:05}.gguf" for part in range(1, number + 1)]


# Names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("qwen3-8b-q4_k_m.gguf", "qwen3-8b-q4_k_m"),
        ("chat/qwen3-8b-q4_k_m.gguf", "qwen3-8b-q4_k_m"),
        ("UPPER.GGUF", "UPPER"),
        ("llama-7b/model.gguf", "llama-7b"),
        ("llama-7b/ggml-model-q4_0.gguf", "llama-7b"),
        ("a/b/c/llama-7b/ggml-model-f16.gguf", "llama-7b"),
        ("model.gguf", "model"),
        ("bartowski/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf", "bartowski/Qwen3-8B-GGUF"),
        (f"{SNAPSHOT}/Qwen3-8B-Q4_K_M.gguf", "bartowski/Qwen3-8B-GGUF"),
        (f"hub/{SNAPSHOT}/Q4_K_M/Qwen3-8B-Q4_K_M.gguf", "bartowski/Qwen3-8B-GGUF"),
        ("models--gpt2/snapshots/0/gpt2.gguf", "gpt2"),
    ],
)
def test_a_model_has_a_friendly_name(path: str, name: str) -> None:
    assert discovered(path) == {
        name: Discovered(path=HOME / path, parts=(HOME / path,), size=10, mmproj=None)
    }


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x.gguf", "a/x.gguf"], {"x", "a/x"}),
        (["a/x.gguf", "b/x.gguf"], {"a/x", "b/x"}),
        (["a/X.gguf", "b/x.gguf"], {"a/X", "b/x"}),
        (["x.gguf", "X.gguf"], {"X-1", "x-2"}),
        (["x.gguf", "X.gguf", "x-1.gguf"], {"X-2", "x-3", "x-1"}),
        (["a/b/c/x.gguf", "a/d/c/x.gguf"], {"a/b/c/x", "a/d/c/x"}),
        (["o/n/x-Q4_0.gguf", "o/n/x-Q8_0.gguf"], {"o/n:Q4_0", "o/n:Q8_0"}),
        (["o/n/x-UD-Q4_K_XL.gguf", "o/n/x-BF16.gguf"], {"o/n:UD-Q4_K_XL", "o/n:BF16"}),
        (["7B/model-q4_0.gguf", "7B/model-q8_0.gguf"], {"7B:Q4_0", "7B:Q8_0"}),
        (["7B/model-q4_0.gguf", "7B.gguf"], {"7B:Q4_0", "7B"}),
        (["disk/models/one.gguf", "disk/models/two.gguf"], {"one", "two"}),
        (
            [f"{SNAPSHOT}/Qwen3-8B-Q4_0.gguf", f"{SNAPSHOT}/Qwen3-8B-Q8_0.gguf"],
            {"bartowski/Qwen3-8B-GGUF:Q4_0", "bartowski/Qwen3-8B-GGUF:Q8_0"},
        ),
    ],
)
def test_models_of_one_name_are_told_apart(paths: list[str], names: set[str]) -> None:
    models = discovered(*paths)
    assert models.keys() == names
    assert {model.path for model in models.values()} == {HOME / path for path in paths}


def test_one_file_in_two_folders_is_two_models() -> None:
    models = models_in([*found("x.gguf"), *found("x.gguf", folder=Path("/other"))])
    assert {name: model.path for name, model in models.items()} == {
        "models/x": Path("/models/x.gguf"),
        "other/x": Path("/other/x.gguf"),
    }


WORDS = st.sampled_from(
    ["a", "A", "b", "x-Q4_0", "x-q8_0", "x", "model", "1", "models--a--b", "snapshots"]
)
PATHS = st.lists(WORDS, min_size=1, max_size=5).map(lambda words: "/".join(words) + ".gguf")


@given(st.sets(PATHS, max_size=12))
def test_no_model_is_ever_lost_and_no_two_names_differ_by_case_alone(paths: set[str]) -> None:
    old_revisions = {path for path in paths if "models--a--b/snapshots/" in path}
    models = discovered(*sorted(paths - old_revisions))
    assert {model.path for model in models.values()} == {HOME / p for p in paths - old_revisions}
    assert len({name.casefold() for name in models}) == len(models)


@pytest.mark.parametrize(
    ("path", "taken", "name"),
    [
        ("x.gguf", ["x"], "models/x"),
        ("x.gguf", ["X", "models/X"], "x-1"),
        ("a/x.gguf", ["x"], "a/x"),
        ("o/n/x-Q4_0.gguf", ["O/N"], "o/n:Q4_0"),
        ("x.gguf", ["y"], "x"),
    ],
)
def test_a_name_that_is_taken_is_left_to_its_owner(path: str, taken: list[str], name: str) -> None:
    assert models_in(found(path), taken).keys() == {name}


@given(st.sets(PATHS, max_size=8), st.sets(PATHS.map(lambda path: path[:-5].upper()), max_size=4))
def test_no_model_is_lost_to_a_name_that_is_taken(paths: set[str], taken: set[str]) -> None:
    models = models_in(found(*sorted(paths)), sorted(taken))
    assert {name.casefold() for name in models}.isdisjoint(name.casefold() for name in taken)
    assert len(models) == len(models_in(found(*sorted(paths))))


def test_thousands_of_files_in_one_folder_take_no_time_to_speak_of() -> None:
    def discover(number: int) -> None:
        files = [f"m{n}-Q4_0.gguf" for n in range(number)]
        assert len(discovered(*files, "mmproj-F16.gguf")) == number

    assert steps(lambda: discover(2000)) < 15 * steps(lambda: discover(200))


@given(st.permutations(["a/x.gguf", "b/x.gguf", "o/n/x-Q4_0.gguf", "o/n/x-Q8_0.gguf", "X.gguf"]))
def test_names_do_not_depend_on_the_order_of_files(paths: list[str]) -> None:
    assert discovered(*paths) == discovered(*sorted(paths))


def test_of_a_cached_file_only_the_newest_revision_counts() -> None:
    name = "models--o--n/snapshots/{}/x.gguf"
    revisions = [
        Found(HOME, PurePosixPath(name.format(revision)), size=10, modified=modified)
        for revision, modified in (("aa", 1.0), ("bb", 3.0), ("cc", 2.0))
    ]
    models = models_in(revisions)
    assert [model.path for model in models.values()] == [HOME / name.format("bb")]


# Parts


def test_a_split_model_is_one_and_begins_with_its_first_part() -> None:
    models = discovered(*reversed(parts(3)))
    assert models == {
        "big-Q4_K_M": Discovered(
            path=HOME / parts(3)[0], parts=tuple(HOME / part for part in parts(3)), size=30
        )
    }


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_split_model_with_a_part_missing_is_none(missing: int) -> None:
    there = parts(3)
    del there[missing]
    assert discovered(*there, "other.gguf").keys() == {"other"}


def test_split_models_side_by_side_are_not_mixed_up() -> None:
    models = discovered(*parts(2, "a"), *parts(3, "a"), *parts(2, "b"))
    assert sorted(len(model.parts) for model in models.values()) == [2, 2, 3]


# Projectors


@pytest.mark.parametrize(
    ("paths", "pairs"),
    [
        (["o/n/x-Q4_0.gguf", "o/n/mmproj-model-f16.gguf"], {"x-Q4_0": "mmproj-model-f16"}),
        (["x/x-Q4_0.gguf", "x/mmproj.gguf"], {"x-Q4_0": "mmproj"}),
        (
            ["x-Q4_0.gguf", "x-Q8_0.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"],
            {"x-Q4_0": "mmproj-F16", "x-Q8_0": "mmproj-F16"},
        ),
        (
            ["gemma-3-4b-it-Q4_K_M.gguf", "llama-Q4_0.gguf", "mmproj-gemma-3-4b-it-f16.gguf"],
            {"gemma-3-4b-it-Q4_K_M": "mmproj-gemma-3-4b-it-f16", "llama-Q4_0": None},
        ),
        (["Qwen-VL-Q4_0.gguf", "Qwen-VL-mmproj-f16.gguf"], {"Qwen-VL-Q4_0": "Qwen-VL-mmproj-f16"}),
        (["one.gguf", "two.gguf", "mmproj-F16.gguf"], {"one": None, "two": None}),
        (["a/x.gguf", "b/mmproj-F16.gguf"], {"x": None}),
    ],
)
def test_a_projector_goes_with_its_model(paths: list[str], pairs: dict[str, str | None]) -> None:
    models = discovered(*paths).values()
    assert {m.path.stem: m.mmproj.stem if m.mmproj else None for m in models} == pairs


@pytest.mark.parametrize("path", ["notes.txt", "x.gguf.part", "imatrix.gguf", "mmproj-F16.gguf"])
def test_what_is_no_model_is_none(path: str) -> None:
    assert discovered(path) == {}

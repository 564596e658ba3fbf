"""The facts of a model are what its header says, and its quantization is what most of it has."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from llamasup.models.facts import facts_of, in_words
from llamasup.models.gguf import header_of
from tests.models.shapes import llama


def test_the_facts_are_the_headers(tmp_path: Path) -> None:
    path = llama().write(tmp_path)
    facts = facts_of(header_of(path), modified=5.0)
    assert (facts.architecture, facts.quantization, facts.trained_context) == (
        *("llama", "F16"),
        131072,
    )
    assert (facts.size, facts.modified) == (path.stat().st_size, 5.0)
    assert facts.parameters == sum(
        size[0] * (size[1] if len(size) > 1 else 1) for size in llama().tensors.values()
    )


@pytest.mark.parametrize(
    ("kind", "quantization"), [(15, "Q4_K_M"), (32, "BF16"), (999, "F16"), ("7", "F16")]
)
def test_the_file_says_how_it_is_packed_if_that_is_known(
    tmp_path: Path, kind: int | str, quantization: str
) -> None:
    header = header_of(llama().write(tmp_path))
    told = evolve(header, metadata={**header.metadata, "general.file_type": kind})
    assert facts_of(told, 0).quantization == quantization


def test_a_header_without_tensors_is_packed_in_no_way(tmp_path: Path) -> None:
    header = evolve(header_of(llama().write(tmp_path)), tensors=())
    assert (facts_of(header, 0).quantization, facts_of(header, 0).parameters) == ("", 0)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (7, "7"),
        (912_768, "912.77K"),
        (494_032_768, "494.03M"),
        (7_615_616_512, "7.6B"),
        (1_000_000_000, "1.0B"),
    ],
)
def test_numbers_of_weights_are_written_as_people_do(parameters: int, words: str) -> None:
    assert in_words(parameters) == words

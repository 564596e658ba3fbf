"""What a model is for is read from its header, by hand-made models of each kind."""

from __future__ import annotations

from io import BytesIO

import pytest
from attrs import evolve

from llamasup.models.gguf import read_header
from llamasup.models.purpose import Purpose, Wanted, purpose_as, purpose_of
from tests.models.shapes import SHAPES, Shape, bert, llama


def purpose(shape: Shape) -> Purpose:
    return purpose_of(read_header(BytesIO(shape.head() + bytes(2 * shape.weights))))


def with_pooling(shape: Shape, pooling: int) -> Shape:
    tensors = {"token_embd.weight": (32, 259)}
    metadata = {**shape.metadata, "pooling_type": pooling}
    return evolve(shape, tensors=tensors, metadata=metadata)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (bert(), Purpose.EMBED),
        (bert(None), Purpose.EMBED),
        (bert(0), Purpose.EMBED),
        (evolve(bert(2), architecture="nomic-bert"), Purpose.EMBED),
        (evolve(bert(None), architecture="gemma-embedding"), Purpose.EMBED),
        (bert(4), Purpose.RERANK),
        (bert(None, judges=True), Purpose.RERANK),
        (with_pooling(llama(), 3), Purpose.EMBED),
        (with_pooling(llama(), 4), Purpose.RERANK),
        (with_pooling(llama(), 0), Purpose.GENERATE),
    ],
)
def test_the_header_says_what_a_model_is_for(shape: Shape, expected: Purpose) -> None:
    assert purpose(shape) is expected


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_models_that_talk_are_for_that(shape: Shape) -> None:
    assert purpose(evolve(shape, tensors={})) is Purpose.GENERATE


def test_what_cannot_be_read_is_taken_for_a_model_like_most() -> None:
    assert purpose_of(None) is Purpose.GENERATE


@pytest.mark.parametrize(
    ("shape", "wanted", "expected"),
    [
        (llama(), "auto", Purpose.GENERATE),
        (llama(), "embed", Purpose.EMBED_ANYHOW),
        (llama(), "rerank", Purpose.RERANK),
        (with_pooling(llama(), 0), "embed", Purpose.EMBED_ANYHOW),
        (with_pooling(llama(), 3), "embed", Purpose.EMBED),
        (with_pooling(llama(), 3), "generate", Purpose.GENERATE),
        (bert(None), "embed", Purpose.EMBED),
        (bert(4), "embed", Purpose.EMBED),
    ],
)
def test_the_operator_s_word_counts_more_than_the_header_s(
    shape: Shape, wanted: Wanted, expected: Purpose
) -> None:
    header = read_header(BytesIO(evolve(shape, tensors={}).head()))
    assert purpose_as(wanted, header) is expected


def test_a_file_that_cannot_be_read_is_for_what_the_operator_says() -> None:
    assert purpose_as("embed", None) is Purpose.EMBED
    assert purpose_as("auto", None) is Purpose.GENERATE

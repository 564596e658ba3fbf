"""What a model is for is read from its header, by hand-made models of each kind."""

from __future__ import annotations

from io import BytesIO

import pytest
from attrs import evolve

from llamasup.models.gguf import read_header
from llamasup.models.purpose import Purpose, purpose_of
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

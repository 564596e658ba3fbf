"""Texts become vectors, by the newer path and by the older one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamasup.apis.ollama_embed import OllamaEmbed
from llamasup.errors import ClientError, EngineFailed
from tests.apis.ollama_asking import NOW, residence, translation

NEWER, OLDER = b"/api/embed", b"/api/embeddings"
TWO = {
    "data": [{"embedding": [0.6, 0.8], "index": 1}, {"embedding": [3, 4, 12.5e0], "index": 0}],
    "usage": {"prompt_tokens": 5},
}


def put(path: bytes = NEWER, **asked: object) -> Any:
    meant = translation(OllamaEmbed(), path, asked)
    assert (meant.target, meant.streams) == (b"/v1/embeddings", False)
    return json.loads(meant.body)


def told(path: bytes, answer: object, **asked: object) -> Any:
    reply = translation(OllamaEmbed(), path, {"input": "x", "prompt": "x", **asked}).reply(NOW)
    return json.loads(reply.whole(json.dumps(answer).encode()))


def test_texts_are_passed_on() -> None:
    assert put(model="m", input=["a", "b"]) == {"model": "m", "input": ["a", "b"]}
    assert put(input="a", truncate=True, options={"num_ctx": 9}) == {"input": "a"}


def test_the_older_path_takes_one_prompt_and_its_vector_as_it_is() -> None:
    assert put(OLDER, prompt="a") == {"input": "a", "embd_normalize": -1}
    assert told(OLDER, TWO) == {"embedding": [3, 4, 12.5]}


def test_vectors_come_in_the_order_of_their_texts() -> None:
    assert told(NEWER, TWO) == {
        "model": "count",
        "embeddings": [[3, 4, 12.5], [0.6, 0.8]],
        "total_duration": 500_000_000,
        "load_duration": 500_000_000,
        "prompt_eval_count": 5,
    }


def test_a_vector_that_is_shortened_keeps_its_length_of_one() -> None:
    assert told(NEWER, TWO, dimensions=2)["embeddings"] == [[0.6, 0.8], [0.6, 0.8]]
    nothing = {"data": [{"embedding": [0, 0, 1]}]}
    assert told(NEWER, nothing, dimensions=2)["embeddings"] == [[0, 0]]


def test_without_a_text_the_model_is_only_loaded() -> None:
    for asked in ({}, {"input": ""}, {"input": []}):
        loaded = residence(OllamaEmbed(), NEWER, asked)
        assert loaded == (True, {"model": "count", "embeddings": []})
    assert residence(OllamaEmbed(), OLDER, {"keep_alive": 0})[0] is False


@pytest.mark.parametrize("asked", [{"input": 7}, {"input": [7]}, {"input": "x", "dimensions": 0}])
def test_what_is_no_text_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(ClientError):
        put(**asked)


@pytest.mark.parametrize(
    "answer", [{}, {"data": 7}, {"data": [{}]}, {"data": [{"embedding": "x"}]}]
)
def test_what_cannot_be_read_is_the_engines_failure(answer: object) -> None:
    with pytest.raises(EngineFailed):
        told(NEWER, answer, dimensions=2)

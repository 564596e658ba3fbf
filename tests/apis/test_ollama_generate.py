"""Prompts are put as chats, raw ones as completions, and those with a suffix as infills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamasup.apis.dialects import dialect_at
from llamasup.apis.llama_cpp import LlamaCpp
from llamasup.apis.ollama_generate import OllamaGenerate
from llamasup.errors import ClientError
from tests.apis.ollama_asking import NOW, OPENING, events, lines, residence, translation

PATH = b"/api/generate"
RECORDED = (Path(__file__).parent / "recordings" / "llama_cpp.sse").read_bytes()


def put(**members: object) -> tuple[bytes, Any]:
    """The engine's path and request for a prompt with these members."""
    meant = translation(OllamaGenerate(), PATH, {"prompt": "hello", "stream": False, **members})
    return meant.target, json.loads(meant.body)


def test_a_prompt_is_a_chat_of_one_message() -> None:
    target, request = put(system="be short", think=False)
    assert target == b"/v1/chat/completions"
    assert request == {
        "messages": [
            {"role": "system", "content": "be short"},
            {"role": "user", "content": "hello"},
        ],
        "stream": False,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_images_come_with_the_prompt() -> None:
    _, request = put(images=["iVBORw0KGgo="])
    [text, image] = request["messages"][0]["content"]
    assert (text["text"], image["type"]) == ("hello", "image_url")


def test_a_raw_prompt_goes_past_the_template() -> None:
    target, request = put(raw=True, model="m", options={"num_predict": 3, "stop": "x"})
    assert target == b"/completion"
    assert request == {
        "prompt": "hello",
        "stream": False,
        "model": "m",
        "n_predict": 3,
        "stop": ["x"],
    }


def test_a_suffix_is_filled_up_to() -> None:
    target, request = put(suffix="end", format="json", logprobs=True)
    assert target == b"/infill"
    assert request == {
        "input_prefix": "hello",
        "input_suffix": "end",
        "stream": False,
        "json_schema": {"type": "object"},
        "n_probs": 1,
    }


@pytest.mark.parametrize("asked", [{"raw": True}, {"suffix": "x"}, {}])
def test_it_goes_where_an_engine_streams(asked: dict[str, object]) -> None:
    target, _ = put(**asked)
    assert target in dialect_at(target).stream_paths
    assert asked == {} or isinstance(dialect_at(target), LlamaCpp)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "/api/chat"),
        ({"raw": True, "images": ["AA"]}, "images"),
        ({"suffix": "x", "images": ["AA"]}, "images"),
        ({"raw": True, "system": "x"}, "system"),
    ],
)
def test_what_would_change_the_answer_and_cannot_be_obeyed_is_refused(
    asked: dict[str, object], words: str
) -> None:
    with pytest.raises(ClientError, match=words):
        put(**asked)


@pytest.mark.parametrize(
    "asked", [{"template": ""}, {"context": []}, {"images": []}, {"keep_alive": "1h"}]
)
def test_what_asks_for_nothing_changes_nothing(asked: dict[str, object]) -> None:
    assert put(**asked) == put()


def test_without_a_prompt_the_model_is_loaded_or_unloaded() -> None:
    told = {**OPENING, "response": "", "done": True}
    for asked in ({}, {"prompt": ""}, {"prompt": None, "system": "x"}):
        loaded = residence(OllamaGenerate(), PATH, asked)
        assert loaded == (True, {**told, "done_reason": "load"})
    unloaded = residence(OllamaGenerate(), PATH, {"keep_alive": 0})
    assert unloaded == (False, {**told, "done_reason": "unload"})


def test_a_stream_of_a_chat_becomes_lines() -> None:
    reply = translation(OllamaGenerate(), PATH, {"prompt": "x"}).reply(NOW)
    *words, end = lines(
        reply,
        events(
            {"choices": [{"delta": {"reasoning_content": "hm"}}]},
            {"choices": [{"delta": {"content": "4"}, "finish_reason": "stop"}]},
        ),
    )
    assert words == [
        {**OPENING, "response": "", "thinking": "hm", "done": False},
        {**OPENING, "response": "4", "done": False},
    ]
    assert (end["response"], end["done"], end["done_reason"]) == ("", True, "stop")


def test_a_recorded_completion_becomes_lines() -> None:
    reply = translation(OllamaGenerate(), PATH, {"prompt": "x", "raw": True}).reply(NOW)
    *words, end = lines(reply, RECORDED)
    assert "".join(line["response"] for line in words) == "Hello from llamasup!"
    assert end["done"]
    assert end["eval_count"] == len(words)
    assert end["eval_duration"] > 0
    assert reply.ended

"""What a model says is told as Ollama tells it, with the calls of tools as objects."""

from __future__ import annotations

import json

import msgspec

from llamasup.apis.ollama_replies import tool_calls
from llamasup.apis.said import Call


def test_the_arguments_of_a_call_are_an_object_and_what_is_broken_is_text() -> None:
    calls = [Call("add", '{"x":[1]}', "a"), Call("cut", '{"x":'), Call("none", ""), Call("l", "[]")]
    told, broken = tool_calls(calls)
    assert json.loads(msgspec.json.encode(told)) == [
        {"id": "a", "function": {"index": 0, "name": "add", "arguments": {"x": [1]}}},
        {"function": {"index": 1, "name": "none", "arguments": {}}},
    ]
    assert broken == '{"name": "cut", "arguments": "{\\"x\\":"}{"name": "l", "arguments": "[]"}'

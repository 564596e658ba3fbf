"""A chat's stream opens with a role, and speaks with anything else."""

from __future__ import annotations

import pytest

from llamasup.apis.openai_chat import Chat

ROLE = {"delta": {"role": "assistant", "content": None}, "finish_reason": None}


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [ROLE]},
        {"choices": [ROLE, {**ROLE, "index": 1}]},
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": []},
    ],
)
def test_a_role_only_opens(document: object) -> None:
    assert Chat().only_opens(document)


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [{"delta": {"content": " 0"}}]},
        {"choices": [ROLE, {"delta": {"content": " 0"}}]},
        {"choices": [{"delta": {"reasoning_content": "Hm"}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "error": {"message": "no"}},
        {"choices": [7]},
        None,
    ],
)
def test_anything_else_is_a_word(document: object) -> None:
    assert not Chat().only_opens(document)

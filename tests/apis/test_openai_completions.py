"""A completion's stream opens with text that is empty."""

from __future__ import annotations

import pytest

from llamasup.apis.openai_completions import Completions


@pytest.mark.parametrize(
    "document", [{"choices": [{"text": "", "finish_reason": None}]}, {"choices": []}]
)
def test_empty_text_only_opens(document: object) -> None:
    assert Completions().only_opens(document)


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [{"text": "a"}]},
        {"choices": [{"text": ""}, {"text": "a"}]},
        {"choices": [{"text": "", "finish_reason": "stop"}]},
        {"choices": [], "error": {"message": "no"}},
        {"choices": [7]},
        None,
    ],
)
def test_anything_else_is_a_word(document: object) -> None:
    assert not Completions().only_opens(document)


def test_without_its_version_the_path_is_another_apis() -> None:
    assert not Completions().speaks_at(b"/completions")
    assert not Completions().speaks_at(b"/v1/chat/completions")

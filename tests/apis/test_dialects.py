"""Every path is spoken to in its own API, and what each API says is where its dialect says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamasup.apis.anthropic_messages import Messages
from llamasup.apis.dialect import Dialect
from llamasup.apis.dialects import DIALECTS, dialect_at, only_opens, passes_the_time
from llamasup.apis.llama_cpp import LlamaCpp
from llamasup.apis.ollama_chat import OllamaChat
from llamasup.apis.ollama_embed import OllamaEmbed
from llamasup.apis.ollama_generate import OllamaGenerate
from llamasup.apis.ollama_models import OllamaModels
from llamasup.apis.openai_chat import Chat
from llamasup.apis.openai_completions import Completions
from llamasup.apis.openai_others import OpenAIOthers
from llamasup.apis.openai_responses import Responses

RECORDINGS = Path(__file__).parent / "recordings"
STREAMING = [Chat(), Completions(), Responses(), Messages(), LlamaCpp()]

each_streaming = pytest.mark.parametrize("dialect", STREAMING, ids=lambda d: type(d).__name__)


# --- which is spoken where ---


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        (b"/v1/chat/completions", Chat),
        (b"/chat/completions", Chat),
        (b"/chat/completions/input_tokens", Chat),
        (b"/prefix/v1/completions", Completions),
        (b"/v1/completions", Completions),
        (b"/v1/responses", Responses),
        (b"/responses", Responses),
        (b"/v1/embeddings", OpenAIOthers),
        (b"/nope", OpenAIOthers),
        (b"", OpenAIOthers),
        (b"/v1/models", OpenAIOthers),
        (b"/v1/messages", Messages),
        (b"/prefix/v1/messages/count_tokens", Messages),
        (b"/completion", LlamaCpp),
        (b"/llama/completion", LlamaCpp),
        (b"/completions", LlamaCpp),
        (b"/prefix/completions", LlamaCpp),
        (b"/infill", LlamaCpp),
        (b"/tokenize", LlamaCpp),
        (b"/slots/0", LlamaCpp),
        (b"/metrics", LlamaCpp),
        (b"/api/chat", OllamaChat),
        (b"/api/generate", OllamaGenerate),
        (b"/api/embed", OllamaEmbed),
        (b"/prefix/api/embeddings", OllamaEmbed),
        (b"/api/tags", OllamaModels),
    ],
)
def test_every_path_has_its_dialect(path: bytes, dialect: type[Dialect]) -> None:
    assert type(dialect_at(path)) is dialect


def test_each_finds_its_own_paths_and_no_path_is_in_two_dialects() -> None:
    paths = [
        (path, dialect)
        for dialect in DIALECTS
        for path in {
            *(*dialect.stream_paths, *dialect.work_paths),
            *(*dialect.question_paths, *dialect.view_paths),
        }
    ]
    assert len({path for path, _ in paths}) == len(paths)
    for path, dialect in paths:
        assert dialect_at(path) is dialect


# --- what a stream says ---


def test_an_event_is_read_in_any_dialect() -> None:
    for document in (
        *({"choices": []}, {"choices": [{"text": ""}]}, {"content": "", "stop": False}),
        *({"type": "message_start"}, {"type": "response.created"}),
    ):
        assert only_opens(document)
    assert not only_opens({"content": "a"})
    for document in ({"type": "ping"}, {"prompt_progress": {}}):
        assert passes_the_time(document)
    assert not passes_the_time({"type": "message_start"})


def recording(dialect: Dialect, suffix: str) -> bytes:
    module = type(dialect).__module__.rpartition(".")[2]
    return (RECORDINGS / f"{module}{suffix}").read_bytes()


def recorded(dialect: Dialect, suffix: str = "") -> Any:
    return json.loads(recording(dialect, f"{suffix}.json"))


def recorded_events(dialect: Dialect, suffix: str = "") -> list[bytes]:
    """The data of each."""
    lines = recording(dialect, f"{suffix}.sse").split(b"\n")
    return [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]


def documents(events: list[bytes]) -> Iterator[object]:
    return (json.loads(event) for event in events if event != b"[DONE]")


def is_last(dialect: Dialect, event: bytes) -> bool:
    for last in dialect.last_events:
        if isinstance(last, bytes):
            if event == last:
                return True
        elif event != b"[DONE]" and last.items() <= json.loads(event).items():
            return True
    return False


@each_streaming
def test_a_stream_ends_with_its_last_event_and_no_other_is_one(dialect: Dialect) -> None:
    ends = [is_last(dialect, event) for event in recorded_events(dialect)]
    assert ends == [False] * (len(ends) - 1) + [True]


@each_streaming
def test_only_the_events_before_the_first_word_open_an_answer(dialect: Dialect) -> None:
    opening = [dialect.only_opens(document) for document in documents(recorded_events(dialect))]
    first_word = opening.index(False)
    assert first_word <= 4
    # A chat's numbers come in an event without choices, when all words have been said.
    assert opening[first_word:].count(True) == (type(dialect) is Chat)


# --- several answers ---


@pytest.mark.parametrize("dialect", [Chat(), Completions()], ids=lambda d: type(d).__name__)
def test_several_answers_in_one_have_one_end(dialect: Dialect) -> None:
    answer = recorded(dialect, "_two")
    assert len(answer["choices"]) == 2
    ends = [is_last(dialect, event) for event in recorded_events(dialect, "_two")]
    assert ends == [False] * (len(ends) - 1) + [True]


@pytest.mark.parametrize("dialect", [Responses(), LlamaCpp()], ids=lambda d: type(d).__name__)
def test_several_answers_may_be_a_list_and_each_has_its_end_in_the_stream(
    dialect: Dialect,
) -> None:
    answers = recorded(dialect, "_two")
    assert len(answers) == 2
    assert sum(is_last(dialect, event) for event in recorded_events(dialect, "_two")) == 2


def test_only_anthropics_clients_always_get_one_answer() -> None:
    assert [type(dialect) for dialect in STREAMING if not dialect.several] == [Messages]


def test_a_path_has_one_dialect_whatever_stands_around_it() -> None:
    for dialect in DIALECTS:
        for path in dialect.paths:
            assert dialect_at(path) is dialect_at(b"/prefix" + path) is dialect_at(path + b"/")

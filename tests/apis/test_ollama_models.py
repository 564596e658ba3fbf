"""What is asked about models has no model's path, and errors in Ollama's form."""

from __future__ import annotations

from llamasup.apis.ollama_models import OllamaModels
from llamasup.errors import ModelNotFound


def test_llamasup_itself_answers_all_of_it() -> None:
    dialect = OllamaModels()
    assert dialect.stream_paths == dialect.work_paths == dialect.question_paths == ()
    for path in dialect.own_paths:
        assert dialect.speaks_at(b"/prefix" + path)
    assert dialect.error_body(ModelNotFound("none")) == {"error": "none"}

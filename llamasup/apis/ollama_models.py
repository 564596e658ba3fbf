"""What Ollama's clients ask about models. llamasup itself answers it, and no engine. Pure."""

from __future__ import annotations

from typing import Final

from llamasup.apis.ollama import OllamaErrors

VERSION: Final = "0.12.11"
"""The version of Ollama whose API this is. Clients refuse to work with one that they find too
old."""


class OllamaModels(OllamaErrors):
    """`/api/tags` and others: which models there are, and what each of them can do."""

    about = "Ollama's models"
    own_paths = (
        *(b"/api/version", b"/api/tags", b"/api/ps", b"/api/show"),
        *(b"/api/pull", b"/api/push", b"/api/create", b"/api/copy", b"/api/delete"),
    )

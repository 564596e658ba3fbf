"""Which dialects there are, and which of them is spoken at a path. Pure.

llamasup writes to a client in the dialect of the client's path. But it reads an engine's stream in
all dialects: which one an engine uses at a path has changed from version to version.
"""

from __future__ import annotations

from typing import Final

from llamasup.apis.anthropic_messages import Messages
from llamasup.apis.dialect import Dialect
from llamasup.apis.llama_cpp import LlamaCpp
from llamasup.apis.ollama import Ollama
from llamasup.apis.ollama_chat import OllamaChat
from llamasup.apis.ollama_embed import OllamaEmbed
from llamasup.apis.ollama_generate import OllamaGenerate
from llamasup.apis.ollama_models import OllamaModels
from llamasup.apis.openai_chat import Chat
from llamasup.apis.openai_completions import Completions
from llamasup.apis.openai_others import OpenAIOthers
from llamasup.apis.openai_responses import Responses

_OTHERS: Final = OpenAIOthers()

ENGINES: Final[tuple[Dialect, ...]] = (
    *(Chat(), Completions(), Responses(), Messages()),
    LlamaCpp(),  # after those whose paths end like its `/completions`
    _OTHERS,
)
"""The dialects that engines speak."""

TRANSLATED: Final[tuple[Ollama, ...]] = (OllamaChat(), OllamaGenerate(), OllamaEmbed())
"""The dialects whose requests are put to engines in another one."""

DIALECTS: Final[tuple[Dialect, ...]] = (
    *ENGINES[:-2],
    *(*TRANSLATED, OllamaModels()),  # before those whose paths end like `/api/embeddings`
    *ENGINES[-2:],
)


def dialect_at(path: bytes) -> Dialect:
    """The dialect of a path, whatever prefix it has, and with or without a slash at its end; of an
    unknown one, OpenAI's."""
    path = path.removesuffix(b"/")
    return _BY_PATH.get(path) or _found_at(path)


def _found_at(path: bytes) -> Dialect:
    return next((dialect for dialect in DIALECTS if dialect.speaks_at(path)), _OTHERS)


_BY_PATH: Final = {path: _found_at(path) for dialect in DIALECTS for path in dialect.paths}
"""Of the paths without a prefix, which most clients use: to look for each takes up to 10 µs."""


def passes_the_time(document: object) -> bool:
    """Is an event with this JSON only for waiting clients, in any dialect?"""
    for dialect in ENGINES:  # noqa: SIM110 (any() takes twice as long)
        if dialect.passes_the_time(document):
            return True
    return False


def only_opens(document: object) -> bool:
    """Does an event with this JSON only open an answer, in any dialect?"""
    for dialect in ENGINES:  # noqa: SIM110
        if dialect.only_opens(document):
            return True
    return False

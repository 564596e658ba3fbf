"""Ollama's `/api/embed`, and the older `/api/embeddings`, put to engines as OpenAI's embeddings.
Pure.

`/api/embed` takes several texts, and its vectors have the length 1. `/api/embeddings` takes one
text, and its vector is as the model made it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from llamasup.apis.ollama import Ollama
from llamasup.apis.ollama_replies import Teller
from llamasup.apis.ollama_requests import Members, Request, understood
from llamasup.apis.said import End
from llamasup.apis.translation import Moment, Reply, Residence, Translation
from llamasup.errors import ClientError, EngineFailed

_ENGINES_PATH: Final = b"/v1/embeddings"
_OLDER: Final = b"/api/embeddings"
_AS_THEY_ARE: Final = -1
"""llama-server's word for vectors of whatever length."""


class _Embed(Request):
    input: str | list[str] | None = None
    prompt: str | None = None
    dimensions: int | None = None


class OllamaEmbed(Ollama):
    """`/api/embed` and `/api/embeddings`."""

    about = "Ollama's embeddings"
    work_paths = (b"/api/embed", _OLDER)

    def translated(self, path: bytes, body: bytes) -> Translation | Residence:
        """See `Ollama.translated`."""
        asked = understood(body, _Embed)
        is_older = path.endswith(_OLDER)
        texts = asked.prompt if is_older else asked.input
        if not texts:
            answer: Members = {"embedding": []} if is_older else {"embeddings": []}
            return Residence(not asked.unloads, lambda moment: _nothing(moment, answer))
        if asked.dimensions is not None and asked.dimensions < 1:
            raise ClientError("`dimensions` is not a number above 0")
        request: Members = {"input": texts}
        if asked.model:
            request["model"] = asked.model
        if is_older:
            request["embd_normalize"] = _AS_THEY_ARE
        dimensions = None if is_older else asked.dimensions
        return Translation(
            _ENGINES_PATH,
            msgspec.json.encode(request),
            False,
            lambda moment: _EmbedReply(moment, is_older, dimensions),
            asked.unloads,
        )


def _nothing(moment: Moment, answer: Members) -> bytes:
    return msgspec.json.encode({"model": moment.model, **answer})


class _Vector(msgspec.Struct):
    embedding: msgspec.Raw
    index: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Vector]
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _EmbedReply(Reply):
    """Vectors are copied as they are written, because there may be millions of numbers."""

    def __init__(self, moment: Moment, is_older: bool, dimensions: int | None) -> None:
        super().__init__()
        self._teller = Teller(moment)
        self._is_older = is_older
        self._dimensions = dimensions

    def whole(self, body: bytes) -> bytes:
        """See `Reply.whole`."""
        try:
            answer = msgspec.json.decode(body, type=_Answer)
            vectors = [vector.embedding for vector in sorted(answer.data, key=_by_index)]
            if self._dimensions is not None:
                return self._written([_shortened(raw, self._dimensions) for raw in vectors], answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EngineFailed(f"the engine's answer cannot be understood: {error}") from None
        return self._written(vectors, answer)

    def _written(self, vectors: Sequence[object], answer: _Answer) -> bytes:
        if self._is_older:
            return msgspec.json.encode({"embedding": vectors[0] if vectors else []})
        ending = self._teller.ending(End(prompt_tokens=answer.usage.prompt_tokens))
        kept = ("total_duration", "load_duration", "prompt_eval_count")
        return msgspec.json.encode(
            {
                "model": self._teller.moment.model,
                "embeddings": vectors,
                **{name: ending[name] for name in kept},
            }
        )


def _by_index(vector: _Vector) -> int:
    return vector.index


def _shortened(raw: msgspec.Raw, dimensions: int) -> list[float]:
    """The vector's first numbers, again as a vector of length 1."""
    numbers = msgspec.json.decode(raw, type=list[float])[:dimensions]
    length = math.hypot(*numbers)
    return [number / length for number in numbers] if length else numbers
